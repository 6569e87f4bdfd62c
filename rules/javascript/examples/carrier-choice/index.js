// @ts-check
// The cheapest carrier that takes the weight and keeps the promise.
//
// Settings:
//
//   {"carriers": [{"name": "post", "grams_max": 2000, "days": 3, "price": 320},
//                 {"name": "courier", "grams_max": 30000, "days": 1, "price": 990, "countries": ["GB"]}],
//    "weights": [{"category": "lanterns", "grams": 450}, {"sku": "71053", "grams": 600}],
//    "grams": 300, "promise_days": 5}
//
// Goods leave from where they are held, one parcel per location; units of which no place is known go into the first. A
// unit weighs what `weights` says of its SKU, else of its category, else `grams`. The promise is the order's metadata
// `promise_days`, else the settings': days from when the order was placed, and each parcel's `promisedAt` says so. A carrier
// without `countries` goes everywhere. If none takes the weight within the promise, the fastest that takes it does; if none
// takes it at all, the parcel keeps the command's carrier. A command that names a carrier means it, and nothing is changed.

const DAY_MS = 86_400_000;

/**
 * @param {import("./tillstream").ShipRequest} request
 * @returns {import("./tillstream").ShipAnswer}
 */
export function ship({ order, lines, carrier: named }) {
  const { carriers = [], weights = [], grams = 0, promise_days = null } = order.settings;
  if (named !== null || carriers.length === 0) return "pass";
  const days = promiseDays(order, promise_days);
  const split = byLocation(lines);
  for (const parcel of split) {
    const weight = sum(parcel.contents.map((it) => unitGrams(lines[it.line], weights, grams) * it.quantity));
    const carrier = choose(carriers, order.destination.country, weight, days);
    console.log(`${weight} g: ${carrier?.name ?? "nobody takes it"}`);
    parcel.carrier = carrier?.name ?? null;
    parcel.promisedAt = days === null ? null : order.placedAt + days * DAY_MS;
  }
  return { split };
}

function promiseDays(order, ofSettings) {
  const text = (order.metadata.promise_days ?? "").trim();
  const days = /^[+-]?\d+$/.test(text) ? Number(text) : ofSettings;
  return days !== null && days >= 0 && days <= 365 ? days : null;
}

function unitGrams(line, weights, otherwise) {
  const weight =
    weights.find((it) => it.sku === line.sku) ??
    weights.find((it) => it.category != null && it.category === line.category);
  return weight?.grams ?? otherwise;
}

function choose(carriers, country, weight, days) {
  const able = carriers.filter(
    (it) => it.grams_max >= weight && (!it.countries?.length || it.countries.includes(country)),
  );
  const inTime = able.filter((it) => days === null || it.days <= days);
  return least(inTime, (it) => [it.price, it.days]) ?? least(able, (it) => [it.days, it.price]);
}

/** The first of the least, by two numbers. */
function least(them, by) {
  return them.reduce((least, it) => {
    if (least === undefined) return it;
    const [a, b] = [by(it), by(least)];
    return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]) ? it : least;
  }, undefined);
}

/**
 * A parcel for each location, in the order in which the lines name them.
 *
 * @returns {import("./tillstream").Parcel[]}
 */
function byLocation(lines) {
  const parcels = [];
  const nowhere = [];
  const put = (location, content) => {
    const parcel = parcels.find((it) => it.location === location);
    if (parcel) parcel.contents.push(content);
    else parcels.push({ location, contents: [content] });
  };
  for (const [line, it] of lines.entries()) {
    let left = it.quantity;
    for (const held of it.held) {
      const quantity = Math.min(held.quantity, left);
      if (quantity <= 0) continue;
      put(held.location, { line, quantity });
      left -= quantity;
    }
    if (left > 0) nowhere.push({ line, quantity: left });
  }
  if (parcels.length > 0) parcels[0].contents.push(...nowhere);
  else for (const content of nowhere) put(null, content);
  return parcels;
}

function sum(numbers) {
  return numbers.reduce((sum, it) => sum + it, 0);
}
