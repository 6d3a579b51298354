// One message being typed: its text, the caret, where the finger came down for each character, and the last correction.

const IN_WORD = "[\\p{L}\\p{M}\\p{N}]";
const WORD_BEFORE = new RegExp(`${IN_WORD}+(?:['’]${IN_WORD}+)*['’]?$`, "u");
const REST_OF_WORD = new RegExp(`^(?:['’]?${IN_WORD})+`, "u");
const OF_A_WORD = new RegExp(`^(?:${IN_WORD}|['’])$`, "u");
const SENTENCE_OVER = /(^|[.!?…]\s+)$/u;
const MARKS = /^[.,!?;:…]+$/u; // no blank stands before them

export const belongsToWord = (character) => OF_A_WORD.test(character);

export class Message {
  constructor() {
    this.clear();
  }

  clear() {
    this.text = "";
    this.start = this.end = 0; // the selection; the caret where they are equal
    this.touches = []; // [x, y] in millimetres or null, one for each UTF-16 unit of the text
    this.correction = null; // the last one, while Backspace can take it back
    this.kept = null; // the word for which it was taken back
    this.blankIsOurs = false; // a suggestion brought the blank before the caret
  }

  /** What stands before the caret: the word being typed, its touches by code point, and the text before it. */
  get word() {
    const before = this.text.slice(0, this.start);
    const typed = before.match(WORD_BEFORE)?.[0] ?? "";
    const start = before.length - typed.length;
    const touches = [];
    let at = start;
    for (const character of typed) {
      touches.push(this.touches[at] ?? null);
      at += character.length;
    }
    const rest = this.text.slice(this.end).match(REST_OF_WORD)?.[0] ?? "";
    return { context: before.slice(0, start), start, typed, touches, rest };
  }

  get startsSentence() {
    return SENTENCE_OVER.test(this.text.slice(0, this.start));
  }

  /** Whether a correction may replace the word: not inside a longer one, and not if it was taken back before. */
  get mayCorrect() {
    const { start, typed, rest } = this.word;
    return Boolean(typed) && !rest && !(this.kept?.start === start && this.kept.typed === typed);
  }

  insert(character, touch) {
    this.#replace(this.start, this.end, character, Array(character.length).fill(touch));
  }

  /** Ends the word before the caret: `replacement` in its place, then the blank or mark. */
  endWord(replacement, mark) {
    const { start, typed, touches } = this.word;
    const tight = !typed && this.blankIsOurs && MARKS.test(mark);
    this.#replace(start - tight, this.end, replacement + mark);
    if (replacement !== typed) this.correction = { start, typed, touches };
  }

  /** Puts a suggestion and a blank in the place of the word at the caret, the letters after it included. */
  take(suggestion) {
    const { start, typed, rest } = this.word;
    const tight = !typed && MARKS.test(suggestion) && this.text[start - 1] === " ";
    const end = this.end + rest.length;
    const blank = this.text[end] === " " ? "" : " ";
    this.#replace(start - tight, end, suggestion + blank);
    if (!blank) this.start = this.end = this.start + 1;
    this.blankIsOurs = true;
  }

  /** Takes the last correction back, or else deletes the selection or the character before the caret. */
  backspace() {
    if (this.correction) {
      const { start, typed, touches } = this.correction;
      const units = Array.from(typed).flatMap((character, i) => Array(character.length).fill(touches[i]));
      this.#replace(start, this.end, typed, units);
      this.kept = { start, typed };
      return typed;
    }
    const before = this.text.slice(0, this.start);
    const last = this.start < this.end ? "" : lastCharacter(before);
    this.#replace(this.start - last.length, this.end, "");
    return null;
  }

  /** Takes over what the browser changed: pasted, cut, dictated, or the caret moved. */
  adopt(text, start, end) {
    if (text !== this.text) {
      let same = 0;
      while (same < Math.min(text.length, this.text.length) && text[same] === this.text[same]) same++;
      const added = text.length - this.text.length;
      let tail = 0;
      const most = Math.min(text.length, this.text.length) - same;
      while (tail < most && text.at(-1 - tail) === this.text.at(-1 - tail)) tail++;
      const old = this.text.length - tail;
      this.#replace(same, old, text.slice(same, old + added));
    }
    if (start !== this.start || end !== this.end) {
      this.#settle();
      this.start = start;
      this.end = end;
    }
  }

  #replace(from, to, text, touches = Array(text.length).fill(null)) {
    this.#settle();
    this.text = this.text.slice(0, from) + text + this.text.slice(to);
    this.touches.splice(from, to - from, ...touches);
    this.start = this.end = from + text.length;
  }

  #settle() {
    this.correction = null;
    this.blankIsOurs = false;
  }
}

function lastCharacter(text) {
  if (!Intl.Segmenter) return Array.from(text).at(-1) ?? "";
  return Array.from(new Intl.Segmenter().segment(text.slice(-64))).at(-1)?.segment ?? "";
}
