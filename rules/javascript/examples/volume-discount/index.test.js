import assert from "node:assert/strict";
import { test } from "node:test";
import { price, share } from "./index.js";

function decide(quantities, settings = {}) {
  const order = { id: "ord_1", placedAt: 1_291_191_960_000, currency: "GBP", customer: null, metadata: {}, settings };
  const lines = quantities.map((quantity) => ({ sku: "71053", quantity, unitPrice: 339, discount: 0, taxRate: "0.2", category: null }));
  return price({ order, lines });
}

test("many of one thing cost a tenth less", () => {
  assert.deepEqual(decide([9, 10]), { adjust: [{ line: 1, discount: 339 }] });
});

test("few of everything are passed on", () => {
  assert.equal(decide([9, 9]), "pass");
});

test("settings say how many, and how much less", () => {
  assert.deepEqual(decide([5], { from_quantity: 5, rate_bp: 500 }), { adjust: [{ line: 0, discount: 85 }] });
});

test("a part is rounded half to even", () => {
  const halves = [5, 15, 25, 35].map((amount) => share(amount, 1_000));
  assert.deepEqual(halves, [0, 2, 2, 4]);
  assert.equal(share(10_000_000_000_000, 9_999), 9_999_000_000_000);
});
