// Calls to keyfed's server: bodies of POST requests, never addresses, with this run's token.

const PATIENCE_MS = 5000;
const LONGEST_WORD = 48; // nobody's word: not worth asking about
const NO_SUGGESTIONS = { suggestions: [], space: "", ms: 0 };

export class Server {
  #token;
  #arms = 0;
  #asked = { key: null };
  #last = Promise.resolve();

  constructor(token) {
    this.#token = token;
  }

  /** Layout, simulated thumb and names of the models. */
  async open() {
    const described = await this.#post("open", {});
    this.#arms = described.arms.length;
    return described;
  }

  /**
   * The models' suggestions and what the space bar would put in, with whether nothing newer was asked for since.
   * One question is on its way at a time; of those waiting, only the newest is sent.
   */
  suggest(question) {
    const key = JSON.stringify(question);
    if (this.#asked.key === key) return this.#asked.answer;
    const asked = { key };
    this.#asked = asked;
    asked.answer = this.#last.then(async () => {
      if (this.#asked !== asked) return [null, false];
      return [await this.#answer(question), this.#asked === asked];
    });
    this.#last = asked.answer.catch(() => {
      if (this.#asked === asked) this.#asked = { key: null };
    });
    return asked.answer;
  }

  forget() {
    this.#post("forget", {}).catch(() => {});
  }

  async #answer(question) {
    if (question.prefix.length > LONGEST_WORD) return { arms: Array(this.#arms).fill(NO_SUGGESTIONS) };
    return this.#post("suggest", question);
  }

  async #post(call, content) {
    let response;
    try {
      response = await fetch(`/${call}`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Keyfed-Token": this.#token },
        body: JSON.stringify(content, (_, value) => value?.toWellFormed?.() ?? value),
        keepalive: true, // `forget` outlives the page
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
    } catch {
      throw new Error("keyfed does not answer: is it still running in its terminal?");
    }
    if (response.status === 403) throw new Error("Open the whole address that keyfed printed, with what follows #.");
    if (!response.ok) throw new Error((await response.text()).trim());
    return response.json();
  }
}
