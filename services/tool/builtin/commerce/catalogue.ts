/** A product of the demo shop. */
export interface Product {
  readonly id: string;
  readonly name: string;
  readonly category: string;
  readonly description: string;
  /** Hundredths of the currency. */
  readonly priceMinor: number;
  /** Pieces that come in per day. */
  readonly stock: number;
  /** Further words, also in Chinese, that it is found by. */
  readonly words: readonly string[];
  readonly features: readonly string[];
}

export const CATEGORIES = ["audio", "computing", "home", "outdoor", "kitchen"] as const;

export const CATALOGUE: readonly Product[] = [
  {
    id: "headphones-quiet",
    name: "Quiet One wireless headphones",
    category: "audio",
    description: "Over-ear headphones with noise cancelling.",
    priceMinor: 19_900,
    stock: 24,
    words: ["bluetooth", "noise cancelling", "耳机", "降噪"],
    features: ["35 h battery", "USB-C", "folds flat"],
  },
  {
    id: "earbuds-dot",
    name: "Dot earbuds",
    category: "audio",
    description: "Small earbuds for calls and sport.",
    priceMinor: 5_999,
    stock: 60,
    words: ["bluetooth", "in-ear", "耳塞", "蓝牙耳机"],
    features: ["IPX5", "6 h battery and 18 h in the case"],
  },
  {
    id: "speaker-brick",
    name: "Brick portable speaker",
    category: "audio",
    description: "A loud speaker that survives rain.",
    priceMinor: 8_950,
    stock: 15,
    words: ["bluetooth", "音箱", "音响"],
    features: ["IP67", "20 h battery"],
  },
  {
    id: "laptop-air14",
    name: "Field 14 laptop",
    category: "computing",
    description: "A light 14 inch laptop with 16 GB of memory.",
    priceMinor: 109_900,
    stock: 6,
    words: ["notebook", "computer", "笔记本", "电脑"],
    features: ["1.2 kg", "512 GB storage", "14 h battery"],
  },
  {
    id: "keyboard-low",
    name: "Low mechanical keyboard",
    category: "computing",
    description: "A flat mechanical keyboard, wired or wireless.",
    priceMinor: 12_900,
    stock: 18,
    words: ["bluetooth", "键盘", "机械键盘"],
    features: ["hot-swappable switches", "three devices"],
  },
  {
    id: "monitor-27",
    name: "Plane 27 inch monitor",
    category: "computing",
    description: "A 27 inch 4K monitor with USB-C power.",
    priceMinor: 34_900,
    stock: 9,
    words: ["display", "screen", "显示器"],
    features: ["3840 × 2160", "90 W over USB-C"],
  },
  {
    id: "lamp-desk",
    name: "Reed desk lamp",
    category: "home",
    description: "A dimmable desk lamp with warm and cold light.",
    priceMinor: 4_500,
    stock: 40,
    words: ["light", "台灯"],
    features: ["2700 to 6500 K"],
  },
  {
    id: "chair-task",
    name: "Task office chair",
    category: "home",
    description: "An office chair with a mesh back.",
    priceMinor: 25_900,
    stock: 4,
    words: ["seat", "椅子", "办公椅"],
    features: ["adjustable arms", "up to 130 kg"],
  },
  {
    id: "kettle-steel",
    name: "Steel kettle 1.7 l",
    category: "kitchen",
    description: "An electric kettle that keeps the temperature that you set.",
    priceMinor: 5_490,
    stock: 32,
    words: ["electric", "tea", "水壶", "电水壶"],
    features: ["50 to 100 °C", "2200 W"],
  },
  {
    id: "grinder-hand",
    name: "Hand coffee grinder",
    category: "kitchen",
    description: "A hand grinder with steel burrs.",
    priceMinor: 7_200,
    stock: 0,
    words: ["coffee", "mill", "咖啡", "磨豆机"],
    features: ["36 steps", "25 g"],
  },
  {
    id: "tent-two",
    name: "Two-person tent",
    category: "outdoor",
    description: "A free-standing tent for three seasons.",
    priceMinor: 22_900,
    stock: 7,
    words: ["camping", "帐篷", "露营"],
    features: ["2.1 kg", "3000 mm"],
  },
  {
    id: "bottle-vacuum",
    name: "Vacuum bottle 0.75 l",
    category: "outdoor",
    description: "A steel bottle that keeps drinks cold for a day.",
    priceMinor: 2_800,
    stock: 100,
    words: ["flask", "water", "水杯", "保温杯"],
    features: ["750 ml", "no plastic inside"],
  },
];

export function productOf(id: string): Product | undefined {
  return CATALOGUE.find((product) => product.id === id);
}

/** Products that hold all words of a text (or the text as it is, for languages without spaces), those with it in their name first. */
export function findProducts(text: string): Product[] {
  const words = text
    .toLowerCase()
    .split(/[\s,;]+/u)
    .filter((word) => word !== "");
  const held = ({ id, name, category, description, words: more, features }: Product) =>
    [id, name, category, description, ...more, ...features].join(" \n ").toLowerCase();
  const inName = ({ name }: Product) => Number(words.some((word) => name.toLowerCase().includes(word)));
  return CATALOGUE.filter((product) => words.every((word) => held(product).includes(word))).sort(
    (a, b) => inName(b) - inName(a) || (a.id < b.id ? -1 : 1),
  );
}
