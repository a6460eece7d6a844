/** Text that is HTML already. */
export interface Html {
  readonly html: string;
}

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Escapes what is put in, unless it is HTML; lists are joined. */
export function html(parts: TemplateStringsArray, ...values: readonly HtmlValue[]): Html {
  return { html: parts.map((part, index) => part + render(values[index])).join("") };
}

export type HtmlValue = string | number | Html | undefined | readonly HtmlValue[];

function render(value: HtmlValue): string {
  if (value === undefined) return "";
  if (typeof value === "object") return "html" in value ? value.html : value.map(render).join("");
  return String(value).replace(/[&<>"']/g, (character) => ESCAPES[character] ?? "");
}

/** Paragraphs, lists and `code`, as comments of protos write them. */
export function prose(text: string | undefined): Html | undefined {
  if (text === undefined || text === "") return undefined;
  return html`${text
    .split("\n\n")
    .map((block) =>
      block.startsWith("- ")
        ? html`<ul>${block.split("\n").map((line) => html`<li>${inline(line.slice(2))}</li>`)}</ul>`
        : html`<p>${inline(block)}</p>`,
    )}`;
}

export function inline(text: string): readonly HtmlValue[] {
  return text.split("`").map((part, index) => (index % 2 === 1 ? html`<code>${part}</code>` : part));
}
