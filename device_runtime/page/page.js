// The page: keys, message, suggestions and models side by side. Text goes to keyfed's server here, and nowhere else.

import { drawTouch, Layout } from "./layout.js";
import { belongsToWord, Message } from "./message.js";
import { Server } from "./server.js";

const QUIET_MS = 900; // a screen reader hears suggestions once the typing pauses
const SYMBOLS = ["1234567890", "@#€&_-()=%", "'\"*:;/!?"];
const SUGGESTIONS = 3;

const byId = (id) => document.getElementById(id);
const [box, letters, bottom, strip] = ["message", "letters", "bottom", "suggestions"].map(byId);

const server = new Server(location.hash.slice(1));
const message = new Message();
let layout, thumb, names;
let arm = 0; // whose suggestions and corrections the keyboard uses
let shifted = true;
let showsSymbols = false;
let answer = null; // the latest, for what stands before the caret now or a moment ago
let queue = Promise.resolve(); // what was pressed, in order: a blank may wait for its correction
let speakLater;
let pending = 0;

/** The strip is busy, for whoever reads the screen, until all that was pressed is done and answered. */
function busy(change) {
  pending += change;
  strip.setAttribute("aria-busy", String(pending > 0));
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// ---- what a key does

function enqueue(action) {
  busy(1);
  queue = queue.then(action).catch(complain).finally(() => busy(-1));
}

/** A character from a key of either keyboard; `touch` in millimetres where a finger came down for it. */
function press(character, touch = null) {
  enqueue(async () => {
    if (belongsToWord(character)) message.insert(character, touch);
    else await endWord(character);
    if (character === " " || character === "'") showsSymbols = false;
    afterEdit();
  });
}

async function endWord(mark) {
  const { typed } = message.word;
  const [found] = message.mayCorrect ? await ask().catch(withoutAnswer) : [];
  const replacement = found?.arms[arm].space || typed;
  message.endWord(replacement, mark);
  if (replacement !== typed) say(`${typed} corrected to ${replacement}`);
}

function pressBackspace() {
  enqueue(() => {
    const restored = message.backspace();
    if (restored !== null) say(`back to ${restored}`);
    afterEdit();
  });
}

function take(index) {
  enqueue(() => {
    const suggestion = answer?.arms[arm].suggestions[index];
    if (suggestion === undefined) return;
    message.take(suggestion);
    afterEdit();
  });
}

function send() {
  enqueue(async () => {
    await endWord("");
    const text = message.text.trim();
    if (text) byId("sent").append(element("li", {}, text));
    byId("sent").scrollTop = byId("sent").scrollHeight;
    message.clear();
    showsSymbols = false;
    afterEdit();
  });
}

// ---- keeping the screen and the suggestions as the message is

function afterEdit() {
  if (box.value !== message.text) box.value = message.text;
  box.setSelectionRange(message.start, message.end);
  shifted = message.startsSentence;
  showKeys();
  refresh();
}

function refresh() {
  busy(1);
  ask()
    .then(([found, isLatest]) => {
      if (!isLatest) return;
      answer = found;
      showAnswer();
    })
    .catch(complain)
    .finally(() => busy(-1));
}

/** The answer for what stands before the caret now, and whether it is still the latest that was asked for. */
function ask() {
  const { context, typed, touches } = message.word;
  const touches_mm = touches.some(Boolean) ? touches : null;
  return server.suggest({ context, prefix: typed, touches_mm });
}

function showAnswer() {
  byId("trouble").textContent = "";
  const { typed } = message.word;
  const { suggestions, space } = answer.arms[arm];
  for (let i = 0; i < SUGGESTIONS; i++) {
    const button = strip.children[i];
    const text = suggestions[i] ?? "";
    button.textContent = text;
    button.disabled = !text;
    button.classList.toggle("for-space", Boolean(text) && message.mayCorrect && text === space && text !== typed);
  }
  answer.arms.forEach(({ suggestions, space, ms }, i) => {
    const card = byId("arms").children[i];
    card.querySelector("ol").replaceChildren(
      ...suggestions.map((text) => element("li", { class: text === space && text !== typed ? "for-space" : null }, text)),
    );
    card.querySelector(".ms").textContent = `${ms.toFixed(1)} ms`;
  });
  clearTimeout(speakLater);
  speakLater = setTimeout(() => say(suggestions.length ? `Suggestions: ${suggestions.join(", ")}` : ""), QUIET_MS);
}

function say(text) {
  if (byId("spoken").textContent !== text) byId("spoken").textContent = text;
}

/** Typing goes on without the server, uncorrected. */
function withoutAnswer(error) {
  complain(error);
  return [];
}

function complain(error) {
  byId("trouble").textContent = error.message;
}

// ---- the keys

function showKeys() {
  const keyboard = byId("keyboard");
  keyboard.classList.toggle("shifted", shifted);
  keyboard.classList.toggle("symbols", showsSymbols);
  letters.querySelectorAll("[data-key]").forEach((key) => {
    const letter = shifted ? key.dataset.key.toUpperCase() : key.dataset.key;
    if (key.firstChild.textContent !== letter) key.firstChild.textContent = letter;
  });
  keyboard.querySelector("[data-act=shift]").setAttribute("aria-pressed", String(shifted));
  const toggle = keyboard.querySelector("[data-act=symbols]");
  toggle.firstChild.textContent = showsSymbols ? "abc" : "123";
  toggle.setAttribute("aria-label", showsSymbols ? "Letters" : "Digits and marks");
}

const ICONS = {
  shift: "M12 4 4 12.5h4.5V19h7v-6.5H20z",
  backspace: "M9 5h11v14H9l-6-7zM12 9.5l5 5m0-5-5 5",
};

function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A key: a button over its whole cell, with a smaller cap to look at. It is no tab stop but one, see `roam`. */
function key(attributes, content) {
  return element("button", { type: "button", tabindex: "-1", ...attributes }, element("span", { class: "cap" }, content));
}

function place(button, left, top, width, height) {
  Object.entries({ left, top, width, height }).forEach(([side, share]) => (button.style[side] = `${share * 100}%`));
  return button;
}

function actionKey(act, label) {
  return key({ "data-act": act, "aria-label": label, class: "plain" }, ICONS[act] ? icon(act) : "");
}

function makeKeys() {
  const rows = Math.round(layout.height / layout.keyHeight);
  letters.style.setProperty("--rows", rows);
  letters.style.setProperty("--row-share", layout.keyHeight / layout.width);
  const [wide, high] = [layout.keyWidth / layout.width, 1 / rows];
  layout.keys.forEach((letter, i) => {
    const [right, down] = layout.toShares(layout.centres[i]);
    letters.append(place(key({ "data-key": letter, class: "letter" }, letter), right - wide / 2, down - high / 2, wide, high));
  });
  SYMBOLS.forEach((row, line) => {
    const marks = Array.from(row);
    marks.forEach((mark, i) => {
      const left = 0.5 + (i - marks.length / 2) / 10;
      letters.append(place(key({ "data-mark": mark, class: "mark" }, mark), left, line * high, 0.1, high));
    });
  });
  const shift = actionKey("shift", "Shift");
  const backspace = actionKey("backspace", "Backspace");
  const room = layout.roomBesideLastRow().map((millimetres) => millimetres / layout.width);
  const inRow = room.map((share) => share > 0.09);
  if (inRow[0]) letters.append(place(shift, 0, 1 - high, room[0], high));
  if (inRow[1]) letters.append(place(backspace, 1 - room[1], 1 - high, room[1], high));
  bottom.append(
    ...(inRow[0] ? [] : [shift]),
    key({ "data-act": "symbols", class: "plain" }, "123"),
    key({ "data-mark": ",", "aria-label": "Comma" }, ","),
    key({ "data-mark": " ", "aria-label": "Space", class: "space" }, "space"),
    key({ "data-mark": ".", "aria-label": "Full stop" }, "."),
    ...(inRow[1] ? [] : [backspace]),
  );
  letters.querySelector("[data-key]").tabIndex = 0;
}

/** Presses a key; `at` is [clientX, clientY] where a pointer came down, null where a key was activated otherwise. */
function pressKey(button, at) {
  const { key: letter, mark, act } = button.dataset;
  if (act === "backspace") return pressBackspace();
  if (act === "shift") shifted = !shifted;
  if (act === "symbols") showsSymbols = !showsSymbols;
  if (act) return showKeys();
  if (mark) return press(mark);
  pressLetter(letter, at && layout.toMillimetres(...at, letters.getBoundingClientRect()), shifted);
  if (shifted) {
    shifted = false;
    showKeys();
  }
}

/** A letter aimed at; the simulated thumb comes down beside it, perhaps on another key. */
function pressLetter(aimed, touch, upper) {
  const index = layout.keys.indexOf(aimed);
  if (thumb.on) touch = drawTouch(layout.centres[index], thumb);
  const hit = thumb.on ? layout.nearestKey(touch) : index;
  showTouch(touch, hit);
  const letter = layout.keys[hit];
  press(upper ? letter.toUpperCase() : letter, touch);
}

function showTouch(touch, hit) {
  const cap = letters.querySelectorAll("[data-key]")[hit];
  cap.classList.add("down");
  setTimeout(() => cap.classList.remove("down"), 140);
  if (!touch) return;
  const dot = element("i", { class: "touch", "aria-hidden": "true" });
  place(dot, ...layout.toShares(touch), 0, 0);
  letters.append(dot);
  setTimeout(() => dot.remove(), 600);
}

/** The key under a pointer. Between the letters there are no gaps: the nearest one is meant. */
function keyAt(event) {
  const button = event.target.closest("button");
  if (showsSymbols || (button && !button.dataset.key) || !letters.contains(event.target)) return button;
  const touch = layout.toMillimetres(event.clientX, event.clientY, letters.getBoundingClientRect());
  return letters.querySelectorAll("[data-key]")[layout.nearestKey(touch)];
}

let repeating;

function onPointerDown(event) {
  event.preventDefault(); // the caret stays in the message
  const button = event.button === 0 && keyAt(event);
  if (!button) return;
  if (document.activeElement !== box) box.focus();
  pressKey(button, [event.clientX, event.clientY]);
  stopRepeating();
  if (button.dataset.act === "backspace") {
    repeating = setTimeout(() => (repeating = setInterval(pressBackspace, 60)), 450);
  }
}

function stopRepeating() {
  clearTimeout(repeating);
  clearInterval(repeating);
}

/** Arrow keys move between keys; the keyboard is one tab stop. */
function roam(event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const step = steps[event.key];
  if (!step || !event.target.closest("button")) return;
  event.preventDefault();
  const middle = (button) => {
    const { left, top, width, height } = button.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  };
  const from = middle(event.target);
  let nearest = null;
  let least = Infinity;
  for (const button of byId("keyboard").querySelectorAll("button")) {
    if (!button.offsetParent) continue;
    const way = middle(button).map((to, axis) => to - from[axis]);
    const ahead = way[0] * step[0] + way[1] * step[1];
    const aside = Math.abs(way[0] * step[1]) + Math.abs(way[1] * step[0]);
    const cost = ahead + 3 * aside;
    if (ahead > 4 && cost < least) [nearest, least] = [button, cost];
  }
  if (!nearest) return;
  event.target.tabIndex = -1;
  nearest.tabIndex = 0;
  nearest.focus();
}

// ---- the browser's own typing: a real keyboard, paste, dictation, the caret

function onBeforeInput(event) {
  if (event.isComposing) return;
  const { inputType, data } = event;
  if (inputType === "insertText" && data && Array.from(data).length === 1) {
    event.preventDefault();
    const aimed = layout.keys.indexOf(data.toLowerCase());
    if (thumb.on && aimed >= 0) pressLetter(layout.keys[aimed], null, data !== data.toLowerCase());
    else press(data);
  } else if (inputType === "insertLineBreak") {
    event.preventDefault();
    send();
  } else if (inputType === "deleteContentBackward") {
    event.preventDefault();
    pressBackspace();
  }
}

function onChange() {
  enqueue(() => {
    if (box.value === message.text && box.selectionStart === message.start && box.selectionEnd === message.end) return;
    message.adopt(box.value, box.selectionStart, box.selectionEnd);
    refresh();
  });
}

function onShortcut(event) {
  const digit = event.altKey && !event.ctrlKey && event.code?.match(/^Digit([1-3])$/);
  if (!digit) return;
  event.preventDefault();
  take(digit[1] - 1);
}

// ---- models side by side, the thumb

function makeArms() {
  byId("arms").append(
    ...names.map((name, i) => {
      const choice = element("input", { type: "radio", name: "arm", onchange: () => chooseArm(i) });
      choice.checked = i === arm;
      choice.hidden = names.length === 1;
      const head = element("label", {}, choice, element("b", {}, name), element("span", { class: "ms" }, "–"));
      return element("div", { class: "arm" }, head, element("ol", { "aria-label": `Suggestions of ${name}` }));
    }),
  );
}

function chooseArm(index) {
  arm = index;
  if (answer) showAnswer();
}

function makeStrip() {
  for (let i = 0; i < SUGGESTIONS; i++) {
    const onclick = (event) => {
      take(i);
      if (!event.detail) box.focus(); // taken from a real keyboard: go on typing
    };
    const onpointerdown = (event) => event.preventDefault();
    const shortcut = `Alt+${i + 1}`;
    const button = element("button", { type: "button", "aria-keyshortcuts": shortcut, onclick, onpointerdown });
    button.disabled = true;
    strip.append(button);
  }
}

function toggleThumb() {
  thumb.on = !thumb.on;
  byId("thumb").setAttribute("aria-checked", String(thumb.on));
}

async function start() {
  const described = await server.open();
  layout = new Layout(described.layout);
  thumb = { ...described.thumb, on: false };
  names = described.arms;
  byId("thumb-note").textContent =
    `The simulated thumb comes down beside the key you mean, as thumbs do (standard deviation ` +
    `${thumb.sigma_mm.toFixed(1)} mm): ${Math.round(thumb.misses * 100)} of 100 letters fall on another key.`;
  makeArms();
  makeStrip();
  makeKeys();

  const keyboard = byId("keyboard");
  keyboard.addEventListener("pointerdown", onPointerDown);
  keyboard.addEventListener("mousedown", (event) => event.preventDefault());
  keyboard.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && !event.detail) pressKey(button, null); // Enter, or a screen reader: no pointer came down
  });
  keyboard.addEventListener("keydown", roam);
  for (const ending of ["pointerup", "pointercancel", "blur"]) window.addEventListener(ending, stopRepeating);
  box.addEventListener("beforeinput", onBeforeInput);
  box.addEventListener("input", onChange);
  document.addEventListener("selectionchange", onChange);
  document.addEventListener("keydown", onShortcut);
  byId("send").addEventListener("pointerdown", (event) => event.preventDefault());
  byId("send").addEventListener("click", send);
  byId("thumb").addEventListener("click", toggleThumb);
  window.addEventListener("pagehide", () => server.forget());
  box.focus();
  afterEdit();
}

start().catch(complain);
