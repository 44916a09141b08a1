// Where a message is written: its text, its files, and the inputs that the app wants first.

import { byId, h, iconButton, sizeOf } from "./dom.js";
import { InputsForm } from "./fields.js";

export class Composer {
  /**
   * @param {import("./api.js").Api} api
   * @param {{send: (query: string, files: any[], inputs: Record<string, any>) => Promise<boolean>, stop: () => void}} listeners
   *   `send` tells whether the message was taken
   */
  constructor(api, listeners) {
    this._api = api;
    this._listeners = listeners;
    this._files = /** @type {{name: string, file: any}[]} */ ([]);
    this._uploads = 0;
    this._upload = /** @type {any} */ (null);
    this._inputs = new InputsForm([]);
    this._starts = true;
    this._form = byId("composer");
    this._text = byId("query");
    this._chips = byId("chips");
    this._problem = byId("composer-problem");
    this._send = byId("send");
    this._stop = byId("stop");
    this._picker = byId("file-picker");
    this._attach = byId("attach");
    this._form.onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault();
      this._submit();
    };
    this._text.onkeydown = (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && !event.shiftKey && !isComposing(event)) {
        event.preventDefault();
        this._submit();
      } else if (event.key === "Escape" && !this._stop.hidden && !isComposing(event)) this._listeners.stop();
    };
    this._stop.onclick = () => this._listeners.stop();
    this._attach.onclick = () => this._picker.click();
    this._picker.onchange = () => {
      this._take([...this._picker.files]);
      this._picker.value = "";
    };
    this._text.onpaste = (/** @type {ClipboardEvent} */ event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length && this._upload) {
        event.preventDefault();
        this._take(files);
      }
    };
    const drop = byId("chat");
    drop.ondragover = (/** @type {DragEvent} */ event) => {
      if (this._upload && event.dataTransfer?.types.includes("Files")) event.preventDefault();
    };
    drop.ondrop = (/** @type {DragEvent} */ event) => {
      if (!this._upload || !event.dataTransfer?.files.length) return;
      event.preventDefault();
      this._take([...event.dataTransfer.files]);
    };
  }

  /** @param {any} parameters of the app @param {any} site */
  configure(parameters, site) {
    const { file_upload: upload, user_input_form: form } = parameters;
    this._upload = upload.enabled && upload.allowed_file_upload_methods.includes("local_file") ? upload : null;
    this._attach.hidden = !this._upload;
    this._picker.accept = upload.allowed_file_extensions.map((/** @type {string} */ one) => `.${one}`).join();
    this._text.placeholder = site.input_placeholder || "Write a message…";
    this._form_items = form;
    this.begin(this._starts);
  }

  /** @param {boolean} starts whether the next message begins a conversation */
  begin(starts) {
    this._starts = starts;
    this._inputs = new InputsForm(starts ? (this._form_items ?? []) : []);
    const place = byId("inputs");
    place.replaceChildren(this._inputs.element);
    place.hidden = this._inputs.isEmpty;
  }

  /** @param {boolean} canStop */
  showStop(canStop) {
    this._stop.hidden = !canStop;
  }

  /** @param {string} text */
  showProblem(text) {
    this._problem.textContent = text;
  }

  focus() {
    this._text.focus();
  }

  /** Send this text; what is being written stays. @param {string} text */
  async ask(text) {
    if (!this._inputs.isComplete()) {
      // Until the inputs are there, it is the draft.
      this._text.value ||= text;
      return;
    }
    await this._listeners.send(text, [], this._inputs.values());
    this.focus();
  }

  async _submit() {
    const query = this._text.value;
    if (this._send.disabled) return;
    if (!query.trim()) return this.showProblem("Write a message first.");
    if (this._uploads) return this.showProblem("Wait until the files are uploaded.");
    if (!this._inputs.isComplete()) return;
    this.showProblem("");
    this._send.disabled = true;
    const files = this._files;
    this._text.value = "";
    this._files = [];
    this._drawChips();
    try {
      const taken = await this._listeners.send(query, files.map(({ file }) => file), this._inputs.values());
      // What was refused comes back, to be changed and sent again.
      if (!taken) {
        this._text.value = this._text.value ? `${query}\n${this._text.value}` : query;
        this._files = [...files, ...this._files];
        this._drawChips();
      }
    } finally {
      this._send.disabled = false;
      this.focus();
    }
  }

  /** @param {File[]} files */
  async _take(files) {
    for (const file of files) {
      if (this._files.length + this._uploads >= this._upload.number_limits) {
        return this.showProblem(`A message has at most ${this._upload.number_limits} files.`);
      }
      this._uploads++;
      this._drawChips();
      this._uploadOne(file);
    }
  }

  /** @param {File} file */
  async _uploadOne(file) {
    try {
      this._files.push({ name: file.name, file: await this._api.upload(file) });
      this.showProblem("");
    } catch (error) {
      this.showProblem(`${file.name}: ${error.message}`);
    } finally {
      this._uploads--;
      this._drawChips();
    }
  }

  _drawChips() {
    const chips = this._files.map((one) =>
      h(
        "li",
        { class: "chip" },
        h("span", { dir: "auto" }, `${one.file.name} (${sizeOf(one.file.size)})`),
        iconButton("close", `Remove ${one.file.name}`, () => {
          this._files = this._files.filter((other) => other !== one);
          this._drawChips();
        }),
      ),
    );
    if (this._uploads) chips.push(h("li", { class: "chip", role: "status" }, "Uploading…"));
    this._chips.replaceChildren(...chips);
  }
}

/** Whether a key is for the input method, as Safari says it, too. @param {KeyboardEvent} event */
const isComposing = (event) => event.isComposing || event.keyCode === 229;
