/**
 * What a rule in JavaScript is asked and may answer: the world `tillstream:rules@1.0.0`, for the engine `javascript-1`.
 *
 * A rule is one ECMAScript module, `index.js`. It exports a function for each hook that it implements, under the hook's
 * name: `price`, `allocate`, `risk`, `ship`, `measure`. A hook gets its question as an object, and returns its answer at
 * once. It is pure: the same question gives the same answer. Every call has a fresh sandbox, so nothing that one call
 * leaves behind is there in the next.
 *
 * Money is a whole number of minor units (pence, cents) of the order's currency; every amount is far below the largest whole
 * number that JavaScript keeps exactly. A rate is a decimal string between "0" and "10" with at most four places: "0.2" is
 * 20 %. Times are milliseconds since 1970 in UTC.
 *
 * There is no clock, no randomness, no timer, no file, no network and no other module: `new Date()`, `Date.now()` and
 * `Math.random()` throw; `new Date(order.placedAt)` works, and its local time is UTC. `console.log` adds a line to the call's
 * log; what goes beyond 1 KiB in one call of a rule is cut off in silence.
 */

/** What every hook is told about the order. */
export interface Order {
  /** The order's id. */
  id: string;
  /** When it was placed: event time, not the clock. */
  placedAt: number;
  /** ISO 4217. */
  currency: string;
  /** The customer; `null` for a guest. */
  customer: Customer | null;
  /** Where it goes. */
  destination: Destination;
  /** Order metadata, by name, without the names that begin with `customer.`. */
  metadata: Record<string, string>;
  /** This rule's settings; `{}` when none are set. */
  settings: Record<string, any>;
}

/** Who orders. */
export interface Customer {
  /** The merchant's own id. */
  id: string;
  /** Order metadata whose name begins with `customer.`, without that prefix, by name. */
  attributes: Record<string, string>;
}

/** Where an order goes, without the recipient's name and street. */
export interface Destination {
  /** ISO 3166 alpha-2; empty when the order names none. */
  country: string;
  /** State or region. */
  region: string | null;
  /** City. */
  city: string | null;
  /** Postal code. */
  postalCode: string | null;
}

/** A refusal, as the order's history and the API show it. */
export interface Refusal {
  /** Stable code in snake_case, 1 to 64 characters. */
  code: string;
  /** A sentence, at most 500 characters. */
  message: string;
}

/** The question of `price`: asked once per order, before its total is made. */
export interface PriceRequest {
  /** The order. */
  order: Order;
  /** Its lines; the shipping charge is not among them. */
  lines: PriceLine[];
}

/** One line at its price. */
export interface PriceLine {
  /** The SKU. */
  sku: string;
  /** Units, at least 1. */
  quantity: number;
  /** Price of one unit, minor units. */
  unitPrice: number;
  /** What is off already: the line's own discount, and those of rules before this one. Minor units. */
  discount: number;
  /** The tax rate in force for the line. */
  taxRate: string;
  /** The product's category. */
  category: string | null;
}

/** What changes on one line. */
export interface Adjustment {
  /** Index into the request's lines; at most one adjustment per line. */
  line: number;
  /** Taken off in addition, at least 0, capped by what the line has left. Minor units; 0 when left out. */
  discount?: number;
  /** Replaces the tax rate. */
  taxRate?: string | null;
}

/** Nothing to say; lines that change (those not named stay as they are); the order is refused. */
export type PriceAnswer = "pass" | { adjust: Adjustment[] } | { refuse: Refusal };

/** The question of `allocate`: asked once per order that has goods, before stock is held. */
export interface AllocateRequest {
  /** The order. */
  order: Order;
  /** What is to be held. */
  lines: AllocateLine[];
}

/** Goods to hold. */
export interface AllocateLine {
  /** The SKU; every SKU stands once. */
  sku: string;
  /** Units over all lines of the order. */
  quantity: number;
  /** The product's category. */
  category: string | null;
}

/** Where one SKU should come from. */
export interface Placement {
  /** Index into the request's lines; at most one placement per line. */
  line: number;
  /**
   * Locations, the most wanted first, at most 32. Stock takes the units from them in this order, and what they lack from any
   * other location.
   */
  locations: string[];
}

/** Nothing to say; placements (lines not named are placed as without a rule); the order is refused. */
export type AllocateAnswer = "pass" | { place: Placement[] } | { refuse: Refusal };

/** The question of `risk`: asked once per order, when everything is held and before money is asked for. */
export interface RiskRequest {
  /** The order. */
  order: Order;
  /** What is to be paid, minor units. */
  total: number;
  /** Units of goods and fees. */
  units: number;
  /** Lines. */
  lines: number;
  /** The payment method's token, such as `pm_card_visa`. */
  paymentMethod: string;
}

/**
 * Nothing to say; go on; authorize only, and somebody looks at it (the text says why, at most 500 characters); the payment is
 * declined and the order fails.
 */
export type RiskAnswer = "pass" | "approve" | { review: string } | { decline: Refusal };

/** The question of `ship`: asked for every shipment command, before goods leave. */
export interface ShipRequest {
  /** The order. */
  order: Order;
  /** What leaves. */
  lines: ShipLine[];
  /** The carrier that the command names. */
  carrier: string | null;
}

/** Goods that are to leave. */
export interface ShipLine {
  /** The SKU; every SKU stands once. */
  sku: string;
  /** Units to ship now. */
  quantity: number;
  /** The product's category. */
  category: string | null;
  /** Where the order's units of this SKU come from. */
  held: Held[];
}

/** Units held at a location. */
export interface Held {
  /** The location. */
  location: string;
  /** Units of the whole order that were taken from there. */
  quantity: number;
}

/** One shipment. */
export interface Parcel {
  /** Where it leaves from. */
  location?: string | null;
  /** Who carries it; none keeps the command's. */
  carrier?: string | null;
  /** When it is promised to arrive. */
  promisedAt?: number | null;
  /** What is in it. All parcels together hold exactly what the request asked to ship. */
  contents: Content[];
}

/** Units of one line in one parcel. */
export interface Content {
  /** Index into the request's lines. */
  line: number;
  /** Units, at least 1. */
  quantity: number;
}

/** Nothing to say: one shipment, as the command says; one shipment per parcel, 1 to 32; nothing may leave. */
export type ShipAnswer = "pass" | { split: Parcel[] } | { refuse: Refusal };

/** The question of `measure`: asked once per order, when it is priced. */
export interface MeasureRequest {
  /** The order. */
  order: Order;
  /** What is to be paid, minor units. */
  total: number;
  /** The priced lines. */
  lines: MeasureLine[];
}

/** One priced line. */
export interface MeasureLine {
  /** The SKU. */
  sku: string;
  /** Units. */
  quantity: number;
  /** Quantity times price, minor units. */
  gross: number;
  /** What is off, minor units. */
  discount: number;
  /** The product's category. */
  category: string | null;
}

/** Extra dimensions for analytics, at most 8, names in snake_case. */
export type MeasureAnswer = Record<string, string>;
