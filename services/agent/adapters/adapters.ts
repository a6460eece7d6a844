import type { BusinessAdapter } from "./business-adapter.ts";
import { ecommerce } from "./ecommerce.ts";
import { finance } from "./finance.ts";
import { support } from "./support.ts";

const ADAPTERS: ReadonlyMap<string, BusinessAdapter> = new Map(Object.entries({ ecommerce, finance, support }));

/** The adapter that an agent names; undefined for none, and for one that is not known. */
export function adapterOf(name: string): BusinessAdapter | undefined {
  return ADAPTERS.get(name);
}
