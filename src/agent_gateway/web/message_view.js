// One message: what the user said, and the answer with its steps, files and numbers.

import { here } from "./api.js";
import { h, iconButton, sizeOf, timeOf } from "./dom.js";
import { questionForm } from "./fields.js";
import { icon } from "./icons.js";
import { MarkdownView, rendered } from "./markdown.js";

/**
 * @typedef {object} Actions what a user can do with a message
 * @property {(query: string, files: any[]) => Promise<unknown>} again
 * @property {(messageId: string, rating: string | null) => Promise<void>} rate
 * @property {(token: string, action: string, values: Record<string, any>) => Promise<void>} submit
 */

/** A link to a file, or the image itself; only its name if it has no URL that a page may open. @param {any} file */
function fileView(file) {
  const name = file.filename || "file";
  const url = urlOf(file);
  if (!url) return h("li", { dir: "auto" }, name);
  // Files of other hosts are opened, never loaded by this page.
  const isOurs = url.origin === location.origin;
  const preview =
    file.type === "image" && isOurs ? h("img", { src: url.href, alt: name, loading: "lazy" }) : null;
  const label = file.size ? `${name} (${sizeOf(file.size)})` : name;
  const link = h("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", dir: "auto" }, preview, label);
  if (isOurs) link.download = name;
  return h("li", {}, link);
}

/** @param {any} file */
function urlOf(file) {
  let url;
  try {
    // Only those of stored files are the gateway's own.
    url = file.upload_file_id ? here(file.url) : new URL(file.url);
  } catch {
    return null;
  }
  return /^https?:$/.test(url.protocol) ? url : null;
}

/** @param {any[]} files */
const fileList = (files) => h("ul", { class: "files" }, ...files.map(fileView));

export class MessageView {
  /**
   * @param {{id: string, query: string, files: any[], created_at: number}} message
   * @param {Actions} actions
   */
  constructor(message, actions) {
    this.id = message.id;
    this.query = message.query;
    this.files = message.files;
    this.rating = /** @type {string | null} */ (null);
    this._actions = actions;
    this._shown = ""; // what of the stored message is on the page
    this._isEnded = false;
    this._question = ""; // the state of its form
    this._rated = () => {};
    this._steps = /** @type {Map<string, {row: any, summary: any, input: any, output: any}>} */ (new Map());
    this._stepList = h("div", { class: "steps" });
    this._body = h("div", { class: "markdown", dir: "auto" });
    this.answer = new MarkdownView(this._body);
    this._extra = h("div", { class: "extra" });
    this._foot = h("footer");
    this._answerBox = h(
      "article",
      { class: "answer", aria: { label: "Answer" }, tabIndex: -1 },
      this._stepList,
      this._body,
      this._extra,
      this._foot,
    );
    this._query = h("div", { class: "query", dir: "auto" }, message.query);
    this._queryBox = h(
      "article",
      { class: "question-box", aria: { label: "You" } },
      this._query,
      message.files.length ? fileList(message.files) : null,
      h("time", {}, timeOf(message.created_at)),
    );
    this.element = h("section", { class: "message", data: { message: message.id } }, this._queryBox, this._answerBox);
  }

  /** What the user said is known later than the answer begins. @param {string} query */
  setQuery(query) {
    this.query = query;
    this._query.textContent = query;
  }

  /** Whether tokens still come. @param {boolean} isLive */
  setLive(isLive) {
    this.element.classList.toggle("live", isLive);
    if (!isLive) this.setWaiting(false);
    this._answerBox.setAttribute("aria-busy", String(isLive));
  }

  /** Whether another answer comes first. @param {boolean} isWaiting */
  setWaiting(isWaiting) {
    this.element.classList.toggle("waiting", isWaiting);
  }

  /** A step was opened, grew or got its result: always the whole step. @param {any} step */
  showStep(step) {
    let shown = this._steps.get(step.id);
    if (!shown) {
      const summary = h("summary");
      const input = h("pre", { class: "input", dir: "auto" });
      const output = h("pre", { class: "output", dir: "auto" });
      const row = h("details", { class: step.tool ? "step tool" : "step thought" }, summary, input, output);
      shown = { row, summary, input, output };
      this._steps.set(step.id, shown);
      this._stepList.append(row);
    }
    const { summary, input, output } = shown;
    if (step.tool) {
      const done = step.observation !== "";
      setText(summary, `${done ? "Used" : "Uses"} ${step.tool}`);
      setText(input, step.tool_input);
      setText(output, step.observation);
      input.hidden = !step.tool_input;
      output.hidden = !done;
    } else {
      setText(summary, "Thinking");
      setText(input, step.thought);
      output.hidden = true;
    }
  }

  /** @param {any[]} files */
  showFiles(files) {
    const made = files.filter((file) => file.belongs_to === "assistant");
    this._extra.querySelector(".files")?.remove();
    if (made.length) this._extra.append(fileList(made));
  }

  /** @param {string} text @param {boolean} [isNews] whether a screen reader has to say it at once */
  showError(text, isNews = true) {
    this._extra.append(h("p", isNews ? { class: "problem", role: "alert" } : { class: "problem" }, text));
  }

  /** @param {any} question @param {string} [closed] why it can no longer be answered */
  showQuestion(question, closed) {
    this._extra.querySelector(".question")?.remove();
    this._question = closed ? "submitted" : "open";
    if (closed) {
      this._extra.append(h("p", { class: "question closed" }, closed));
      return;
    }
    // The form repeats the text of the answer.
    this._body.hidden = true;
    this._extra.append(
      questionForm(question, (action, values) => this._actions.submit(question.form_token, action, values)),
    );
  }

  /** The question was answered elsewhere: its text stays. @param {string} text */
  closeQuestion(text) {
    this._body.hidden = false;
    this.showQuestion(null, text);
  }

  /**
   * The answer is complete: numbers, and what can be done with it.
   * @param {any} usage
   * @param {{firstToken: number | null, all: number} | null} times seconds, as this page saw them
   */
  showEnd(usage, times) {
    this._isEnded = true;
    const told = [];
    const first = times ? times.firstToken : usage.time_to_first_token;
    const all = times ? times.all : usage.latency;
    if (first) told.push(`first token ${seconds(first)}`);
    if (all) told.push(`${seconds(all)} in all`);
    if (usage.total_tokens) told.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
    if (Number(usage.total_price)) told.push(`${Number(usage.total_price).toFixed(4)} ${usage.currency}`);
    const like = this._rateButton("like", "Good answer", "like");
    const again = iconButton("again", "Ask again", async () => {
      again.disabled = true;
      await this._actions.again(this.query, this.files);
      again.disabled = false;
    });
    const dislike = this._rateButton("dislike", "Bad answer", "dislike");
    this._foot.replaceChildren(
      h("span", { class: "usage" }, told.join(" · ")),
      iconButton("copy", "Copy answer", (event) => this._copy(event)),
      again,
      like,
      dislike,
    );
    this._rated = () => {
      like.setAttribute("aria-pressed", String(this.rating === "like"));
      dislike.setAttribute("aria-pressed", String(this.rating === "dislike"));
    };
    this._rated();
  }

  /** @param {string[]} questions @param {(question: string) => void} ask */
  showSuggestions(questions, ask) {
    if (!questions.length) return;
    const buttons = questions.map((question) =>
      h("button", { type: "button", class: "suggestion", dir: "auto", onclick: () => ask(question) }, question),
    );
    this._extra.append(h("div", { class: "suggestions", aria: { label: "Suggested questions" }, role: "group" }, ...buttons));
  }

  /** A message whose turn has ended, as the gateway stores it. @param {any} item as GET /messages has it */
  showStored(item) {
    const state = JSON.stringify([item.answer, item.error, item.feedback, item.extra_contents, item.query]);
    const question = item.extra_contents[0]?.state ?? "";
    const isHere = this._isEnded && this.answer.text === item.answer && this._question === question && !item.error;
    const isKnown = state === this._shown || (isHere && !this._shown);
    this._shown = state;
    // What came as events has more to show than what is stored.
    if (isKnown) return;
    this.setLive(false);
    this.setQuery(item.query);
    this._steps.clear();
    this._stepList.replaceChildren();
    this._extra.replaceChildren();
    for (const step of item.agent_thoughts) this.showStep(step);
    this._body.hidden = false;
    this._body.replaceChildren(rendered(item.answer));
    this.answer.text = item.answer;
    this.rating = item.feedback?.rating ?? null;
    this.showFiles(item.message_files);
    for (const content of item.extra_contents) {
      const { state, form_definition: question, form_submission_data: answer } = content;
      if (state === "open") this.showQuestion(question);
      else if (state === "submitted") this.showQuestion(question, answer?.action_text ? `Answered: ${answer.action_text}` : "Answered.");
      else this.showQuestion(question, "This question is closed.");
    }
    if (item.error) this.showError(item.error, false);
    this.showEnd(item.metadata.usage, null);
  }

  /** @param {"like" | "dislike"} symbol @param {string} label @param {string} rating */
  _rateButton(symbol, label, rating) {
    return iconButton(symbol, label, async () => {
      const before = this.rating;
      this.rating = before === rating ? null : rating;
      this._rated();
      try {
        await this._actions.rate(this.id, this.rating);
      } catch (error) {
        this.rating = before;
        this._rated();
        this.showError(error.message);
      }
    });
  }

  /** @param {any} event */
  async _copy(event) {
    const button = event.currentTarget;
    try {
      await navigator.clipboard.writeText(this.answer.text);
      button.replaceChildren(icon("done"));
    } catch {
      button.replaceChildren(icon("failed"));
    }
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  }
}

/** Set a text if it is another one. @param {any} element @param {string} text */
function setText(element, text) {
  const node = element.firstChild;
  if (node instanceof Text && text.startsWith(node.data)) {
    if (text.length > node.data.length) node.appendData(text.slice(node.data.length));
  } else element.textContent = text;
}

/** @param {number} value */
const seconds = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`);
