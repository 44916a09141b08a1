// Fields of forms: those that an app wants before a conversation, and those of an agent's question.

import { h } from "./dom.js";
import { rendered } from "./markdown.js";

/**
 * @typedef {object} Field
 * @property {string} kind
 * @property {string} name
 * @property {string} label
 * @property {boolean} required
 * @property {string} [placeholder]
 * @property {any} [value]
 * @property {number} [longest]
 * @property {{value: string, label: string}[]} [options]
 */

/** A labelled control. @param {Field} field @param {string} prefix of its id */
function control(field, prefix) {
  const common = {
    id: `${prefix}-${field.name}`,
    name: field.name,
    required: field.required,
    placeholder: field.placeholder || undefined,
    maxLength: field.longest || undefined,
  };
  let input;
  if (field.kind === "select") {
    const options = (field.options ?? []).map(({ value, label }) => h("option", { value }, label));
    input = h("select", { ...common, placeholder: undefined }, h("option", { value: "" }, "Choose…"), ...options);
  } else if (field.kind === "paragraph") {
    input = h("textarea", { ...common, rows: 3, dir: "auto" });
  } else if (field.kind === "checkbox") {
    input = h("input", { ...common, type: "checkbox", required: false });
  } else {
    input = h("input", { ...common, type: field.kind === "number" ? "number" : "text", dir: "auto", step: "any" });
  }
  if (field.kind === "checkbox") input.checked = field.value === true;
  else input.value = field.value ?? "";
  const mark = field.required ? h("span", { class: "required" }, " (required)") : null;
  return h("p", { class: "field" }, h("label", { htmlFor: input.id }, field.label || field.name, mark), input);
}

/** The values of a form by name; what is empty is left out. @param {HTMLFormElement} form */
function valuesOf(form) {
  const values = /** @type {Record<string, any>} */ ({});
  for (const input of /** @type {any} */ (form.elements)) {
    if (!input.name) continue;
    if (input.type === "checkbox") values[input.name] = input.checked;
    else if (input.value !== "") values[input.name] = input.type === "number" ? Number(input.value) : input.value;
  }
  return values;
}

/** The form of the inputs that an app wants when a conversation begins. */
export class InputsForm {
  /** @param {Record<string, any>[]} items `user_input_form` of GET /parameters */
  constructor(items) {
    const fields = items.flatMap((item) => Object.entries(item)).map(([kind, field]) => ({
      kind,
      name: field.variable,
      label: field.label,
      required: Boolean(field.required),
      placeholder: field.placeholder,
      value: field.default,
      longest: field.max_length,
      options: (field.options ?? []).map((/** @type {string} */ value) => ({ value, label: value })),
    }));
    this.isEmpty = fields.length === 0;
    this.element = h(
      "form",
      { class: "inputs", aria: { label: "Inputs of this conversation" }, onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
      ...fields.map((field) => control(field, "input")),
    );
  }

  /** Whether all that is required is there; the browser says what is not. */
  isComplete = () => this.element.reportValidity();
  values = () => valuesOf(this.element);
}

/**
 * The form of a question to a human.
 * @param {any} question as `human_input_required` has it
 * @param {(action: string, values: Record<string, any>) => Promise<void>} submit
 */
export function questionForm(question, submit) {
  const fields = new Map(
    question.inputs.map((/** @type {any} */ input) => [
      input.output_variable_name,
      {
        kind: input.type,
        name: input.output_variable_name,
        label: input.label,
        required: input.required,
        placeholder: input.placeholder,
        value: question.resolved_default_values[input.output_variable_name] ?? input.default?.value,
        options: input.options,
      },
    ]),
  );
  const prefix = `form-${question.form_id}`;
  const body = h("div", { class: "question-body", dir: "auto" });
  for (const part of question.form_content.split(/(\{\{#\$output\.[^}]*#\}\})/)) {
    const name = /^\{\{#\$output\.(.*)#\}\}$/.exec(part)?.[1];
    if (name === undefined) body.append(rendered(part));
    else if (fields.has(name)) {
      // The text before it is its label.
      const field = /** @type {Field} */ (fields.get(name));
      if (body.lastElementChild?.textContent?.trim() === field.label) body.lastElementChild.remove();
      body.append(control(field, prefix));
      fields.delete(name);
    }
  }
  for (const field of fields.values()) body.append(control(/** @type {Field} */ (field), prefix));
  const problem = h("p", { class: "problem", role: "alert" });
  const buttons = question.actions.map((/** @type {any} */ action) =>
    h("button", { type: "submit", value: action.id, class: `action ${action.button_style}` }, action.title),
  );
  const form = h(
    "form",
    {
      class: "question",
      aria: { label: question.node_title },
      onsubmit: async (/** @type {any} */ event) => {
        event.preventDefault();
        problem.textContent = "";
        for (const button of buttons) button.disabled = true;
        try {
          await submit(event.submitter.value, valuesOf(form));
        } catch (error) {
          problem.textContent = error.message;
          for (const button of buttons) button.disabled = false;
        }
      },
    },
    h("h3", {}, question.node_title),
    body,
    h("div", { class: "actions" }, ...buttons),
    problem,
  );
  return form;
}
