import assert from "node:assert/strict";
import { test } from "node:test";
import { ship } from "./index.js";

const SETTINGS = {
  carriers: [
    { name: "post", grams_max: 2000, days: 3, price: 320 },
    { name: "courier", grams_max: 30000, days: 1, price: 990, countries: ["GB"] },
  ],
  weights: [
    { category: "lanterns", grams: 450 },
    { sku: "71053", grams: 600 },
  ],
  grams: 300,
};

function request(quantity, held, { promiseDays, country = "GB", carrier = null } = {}) {
  const order = {
    id: "ord_1",
    placedAt: 1_291_191_960_000,
    currency: "GBP",
    customer: null,
    destination: { country, region: null, city: null, postalCode: null },
    metadata: promiseDays === undefined ? {} : { promise_days: promiseDays },
    settings: SETTINGS,
  };
  const places = held.map(([location, quantity]) => ({ location, quantity }));
  return { order, lines: [{ sku: "71053", quantity, category: "lanterns", held: places }], carrier };
}

const chosen = (request) => ship(request).split.map((it) => it.carrier);

test("the cheapest takes what it can carry in time", () => {
  assert.deepEqual(chosen(request(3, [["main", 3]])), ["post"]);
  assert.deepEqual(chosen(request(4, [["main", 4]])), ["courier"], "2,400 g are too much for the post");
  assert.deepEqual(chosen(request(1, [["main", 1]], { promiseDays: "2" })), ["courier"], "the post needs three days");
});

test("what nobody carries in time goes with the fastest, and what nobody carries with the command's", () => {
  assert.deepEqual(chosen(request(1, [["main", 1]], { promiseDays: "0" })), ["courier"]);
  assert.deepEqual(chosen(request(1, [["main", 1]], { promiseDays: "0", country: "AU" })), ["post"]);
  assert.deepEqual(chosen(request(60, [["main", 60]])), [null]);
});

test("each location sends its own parcel with the promise", () => {
  const { split } = ship(request(5, [["north", 2], ["south", 2]], { promiseDays: "2" }));
  const promisedAt = 1_291_191_960_000 + 2 * 86_400_000;
  assert.deepEqual(split, [
    { location: "north", contents: [{ line: 0, quantity: 2 }, { line: 0, quantity: 1 }], carrier: "courier", promisedAt },
    { location: "south", contents: [{ line: 0, quantity: 2 }], carrier: "courier", promisedAt },
  ]);
});

test("goods of no known place are one parcel, and a named carrier stays", () => {
  const [parcel] = ship(request(1, [])).split;
  assert.deepEqual([parcel.location, parcel.carrier, parcel.promisedAt], [null, "post", null]);
  assert.equal(ship(request(1, [], { carrier: "van" })), "pass");
});
