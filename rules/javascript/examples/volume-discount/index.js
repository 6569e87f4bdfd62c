// @ts-check
// Who buys many of one thing pays less for each.
//
// Settings: `{"from_quantity": 10, "rate_bp": 1000}` takes 10 % off every line of 10 units or more.

/**
 * @param {import("./tillstream").PriceRequest} request
 * @returns {import("./tillstream").PriceAnswer}
 */
export function price({ order, lines }) {
  const { from_quantity = 10, rate_bp = 1_000 } = order.settings;
  const adjust = [];
  for (const [line, it] of lines.entries()) {
    if (it.quantity < from_quantity) continue;
    const discount = share(it.unitPrice * it.quantity - it.discount, rate_bp);
    if (discount > 0) adjust.push({ line, discount });
  }
  return adjust.length === 0 ? "pass" : { adjust };
}

/**
 * A part of an amount, rounded half to even: the way every amount is rounded here.
 *
 * @param {number} amount Minor units.
 * @param {number} rateBp Basis points: 1,000 is 10 %.
 */
export function share(amount, rateBp) {
  // Parted, so that no product leaves what a number holds exactly.
  const tens = Math.floor(amount / 10_000);
  const product = (amount - tens * 10_000) * rateBp;
  const whole = tens * rateBp + Math.floor(product / 10_000);
  const rest = product - Math.floor(product / 10_000) * 10_000;
  const up = rest > 5_000 || (rest === 5_000 && whole % 2 !== 0);
  return whole + (up ? 1 : 0);
}
