/**
 * Names for prepared statements: the server parses and plans a text once per connection. Texts beyond `limit` get no
 * name, so that a caller who builds texts dynamically cannot fill the server's memory.
 */
export class StatementNames {
  readonly #names = new Map<string, string>();
  readonly #limit: number;

  constructor(limit = 500) {
    this.#limit = limit;
  }

  of(text: string): string | undefined {
    const known = this.#names.get(text);
    if (known !== undefined || this.#names.size >= this.#limit) return known;
    const name = `am${this.#names.size}`;
    this.#names.set(text, name);
    return name;
  }
}
