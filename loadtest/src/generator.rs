//! The workload: order `i` depends only on (seed, i), a product only on (tenant, SKU). All draws are splitmix64.
//!
//! It repeats the comparison program's generator bit for bit, so that both work on the same orders.

use std::collections::BTreeMap;
use std::fmt::Write;
use tillstream_schemas::item::{AdjustStock, ItemCommand, ItemCommandPayload, UpsertProduct};
use tillstream_schemas::order_command::{
    CaptureMode, OrderCommand, OrderCommandPayload, OrderLine, PaymentInstruction, PlaceOrder,
};
use tillstream_schemas::{Text, TextMap};
use tillstream_stage::ids::derived_id;

/// Tenants of the workload; the first places most orders.
pub const TENANTS: usize = 20;
/// SKUs of each tenant; the first sells most.
pub const SKUS: usize = 10_000;

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
/// Orders of 1 to 5 lines; 2.5 on average.
const LINES_CDF: [f64; 5] = [0.25, 0.55, 0.77, 0.93, 1.0];
/// The stock a product begins with: enough for every order.
const STOCK_UNITS: i64 = 1_000_000;
const TAX_CLASSES: [Option<&str>; 4] = [None, Some("zero"), Some("reduced"), Some("standard")];

/// splitmix64's finalizer over one step.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// FNV-1a, 32 bits.
fn fnv(text: &str) -> u64 {
    u64::from(
        text.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)),
    )
}

fn hex(text: &mut String, number: u64, digits: usize) {
    for digit in (0..digits).rev() {
        let nibble = (number >> (4 * digit)) & 15;
        text.push(char::from_digit(nibble as u32, 16).unwrap_or('0'));
    }
}

/// Cumulative shares of a Zipf law with exponent 1.
fn zipf(count: usize) -> Vec<f64> {
    let mut sum = 0.0;
    let mut cdf: Vec<f64> = (0..count)
        .map(|rank| {
            sum += 1.0 / (rank + 1) as f64;
            sum
        })
        .collect();
    for share in &mut cdf {
        *share /= sum;
    }
    cdf
}

fn pick(cdf: &[f64], unit: f64) -> usize {
    cdf.partition_point(|share| *share <= unit).min(cdf.len() - 1)
}

struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// An order before it is anybody's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedOrder {
    /// The tenant.
    pub tenant: Text,
    /// Unique over (seed, index).
    pub reference: String,
    /// The customer, 100 characters.
    pub customer: String,
    /// SKU and units.
    pub lines: Vec<(Text, i64)>,
}

/// A product of the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedProduct {
    /// What it is called.
    pub name: String,
    /// EUR, minor units.
    pub price_minor: i64,
    /// Its tax class.
    pub tax_class: Option<&'static str>,
}

/// The generator.
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    tenants: Vec<Text>,
    skus: Vec<Text>,
    tenant_cdf: Vec<f64>,
    sku_cdf: Vec<f64>,
}

impl Generator {
    /// The workload of a seed, over the first `skus` SKUs (at most [`SKUS`]).
    pub fn new(seed: u64, skus: usize) -> Self {
        let skus = skus.clamp(1, SKUS);
        let sku = |index: usize| {
            let mut text = format!("SKU-{index:05}-");
            hex(&mut text, mix(index as u64), 16);
            hex(&mut text, mix(!(index as u64)), 10);
            Text::from(text)
        };
        Self {
            seed,
            tenants: (0..TENANTS).map(|it| Text::from(format!("tenant-{it:02}.shop.example"))).collect(),
            skus: (0..skus).map(sku).collect(),
            tenant_cdf: zipf(TENANTS),
            sku_cdf: zipf(skus),
        }
    }

    /// The tenants.
    pub fn tenants(&self) -> &[Text] {
        &self.tenants
    }

    /// The SKUs, which every tenant has.
    pub fn skus(&self) -> &[Text] {
        &self.skus
    }

    /// The `index`th order.
    pub fn order(&self, index: u64) -> GeneratedOrder {
        let mut draws = Draws(mix(self.seed) ^ mix(index.wrapping_mul(0x5851_F42D_4C95_7F2D)));
        let tenant = self.tenants[pick(&self.tenant_cdf, draws.unit())].clone();
        let random = draws.next();
        let mut reference = String::with_capacity(36);
        for (lead, number, digits) in [
            ("", random, 8),
            ("-", random >> 32, 4),
            ("-4", random >> 48, 3),
            ("-8", random >> 20, 3),
            ("-", index, 12),
        ] {
            reference.push_str(lead);
            hex(&mut reference, number, digits);
        }
        let drawn = draws.next();
        let mut customer = String::with_capacity(100);
        customer.push_str("cus_");
        for part in 0..6 {
            hex(&mut customer, mix(drawn.wrapping_add(part)), 16);
        }
        let count = 1 + pick(&LINES_CDF, draws.unit());
        let lines = (0..count)
            .map(|_| {
                let sku = self.skus[pick(&self.sku_cdf, draws.unit())].clone();
                (sku, 1 + (draws.unit() * 3.0) as i64)
            })
            .collect();
        GeneratedOrder { tenant, reference, customer, lines }
    }

    /// The product behind a SKU.
    pub fn product(&self, tenant: &str, sku: &str) -> GeneratedProduct {
        let hash = mix(fnv(tenant).wrapping_mul(31).wrapping_add(fnv(sku)));
        GeneratedProduct {
            name: format!("Product {} of {tenant}", sku.get(4..9).unwrap_or(sku)),
            price_minor: 100 + ((hash >> 33) % 9_900) as i64,
            tax_class: TAX_CLASSES[(hash & 3) as usize],
        }
    }

    /// The commands that put a product and its stock in place.
    pub fn item_commands(&self, tenant: &Text, sku: &Text, accepted_at_ms: i64) -> [ItemCommand; 2] {
        let GeneratedProduct { name, price_minor, tax_class } = self.product(tenant, sku);
        let product = UpsertProduct {
            name: name.into(),
            description: None,
            category: Some(Text::const_new("bench")),
            tax_class: tax_class.map(Text::const_new),
            active: true,
            stocked: true,
            prices: BTreeMap::from([(Text::const_new("EUR"), price_minor)]),
            image_urls: Vec::new(),
            low_stock_threshold: None,
            metadata: TextMap::new(),
        };
        let stock = AdjustStock {
            delta: STOCK_UNITS,
            reason: Text::const_new("received"),
            location: Text::const_new("main"),
            fingerprint: Text::default(),
        };
        let command = |prefix: &str, payload| ItemCommand {
            id: derived_id("cmd_", &[prefix, tenant, sku]),
            tenant: tenant.clone(),
            sku: sku.clone(),
            accepted_at_ms,
            traceparent: None,
            payload,
        };
        [
            command("product", ItemCommandPayload::UpsertProduct(Box::new(product))),
            command("stock", ItemCommandPayload::AdjustStock(stock)),
        ]
    }
}

impl GeneratedOrder {
    /// The command that ingest would have written.
    pub fn into_command(self, accepted_at_ms: i64) -> OrderCommand {
        let line = |(sku, quantity)| OrderLine { sku, quantity, unit_price_minor: None, discount_minor: 0 };
        let place = PlaceOrder {
            customer: Some(self.customer.into()),
            currency: Text::const_new("EUR"),
            country: Text::const_new("DE"),
            placed_at_ms: accepted_at_ms,
            lines: self.lines.into_iter().map(line).collect(),
            discounts: Vec::new(),
            shipping: None,
            payment: PaymentInstruction {
                method: Text::const_new("pm_card_visa"),
                capture: CaptureMode::Automatic,
            },
            metadata: TextMap::new(),
            ship_to: None,
            note: None,
        };
        let mut fingerprint = self.reference.replace('-', "");
        fingerprint.truncate(24);
        OrderCommand {
            id: derived_id("cmd_", &[&self.tenant, &self.reference]),
            order_id: derived_id("ord_", &[&self.tenant, &self.reference]),
            tenant: self.tenant,
            accepted_at_ms,
            traceparent: None,
            fingerprint: fingerprint.into(),
            payload: OrderCommandPayload::PlaceOrder(Box::new(place)),
        }
    }

    /// The body that a merchant would send; with its Idempotency-Key inside when it is a bulk line.
    pub fn json(&self, bulk: bool) -> String {
        let mut body = String::with_capacity(400);
        body.push('{');
        if bulk {
            let _ = write!(body, r#""idempotency_key":"{}","#, self.reference);
        }
        let _ = write!(body, r#""customer":"{}","currency":"EUR","country":"DE","lines":["#, self.customer);
        for (index, (sku, quantity)) in self.lines.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(body, r#"{comma}{{"sku":"{sku}","quantity":{quantity}}}"#);
        }
        body.push_str(r#"],"payment":{"method":"pm_card_visa","capture":"automatic"}}"#);
        body
    }
}

impl GeneratedProduct {
    /// The body of `PUT /v1/products/{sku}`.
    pub fn json(&self) -> String {
        serde_json::json!({
            "name": self.name, "category": "bench", "tax_class": self.tax_class, "active": true, "stocked": true,
            "prices": {"EUR": self.price_minor},
        })
        .to_string()
    }

    /// The body of its first stock adjustment.
    pub fn stock_json(&self) -> String {
        serde_json::json!({"delta": STOCK_UNITS, "reason": "received", "location": "main"}).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_gives_the_same_orders_and_another_seed_others() {
        let (one, again, other) = (Generator::new(1, SKUS), Generator::new(1, SKUS), Generator::new(2, SKUS));
        for index in 0..200 {
            assert_eq!(one.order(index), again.order(index));
        }
        assert!((0..200).all(|it| one.order(it) != other.order(it)));
    }

    #[test]
    fn texts_have_the_comparison_programs_form() {
        let generator = Generator::new(1, SKUS);
        assert_eq!(generator.tenants()[7], "tenant-07.shop.example");
        assert!(generator.skus().iter().all(|it| it.len() == 36));
        // splitmix64's first output for the state 0, as its reference implementation prints it.
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
        assert!(generator.skus()[0].starts_with("SKU-00000-e220a8397b1dcdaf"));
        // FNV-1a's published value.
        assert_eq!(fnv("foobar"), 0xBF9C_F968);
        let order = generator.order(5);
        assert_eq!(order.customer.len(), 100);
        assert_eq!(order.reference.len(), 36);
        assert!(order.reference.ends_with("-000000000005"));
    }

    /// Order 5 of seed 1, as the comparison program prints it.
    #[test]
    fn an_order_is_the_comparison_programs_order() {
        let generator = Generator::new(1, SKUS);
        let order = generator.order(5);
        assert_eq!(order.tenant, "tenant-08.shop.example");
        assert_eq!(order.reference, "586101fb-8adc-4dcf-8586-000000000005");
        let customer = "cus_ac1e5e04b389fd78f4c2870c4db2536612d988689803a3c7\
            999441038fa584bce86d064b96add21174d104371e297239";
        assert_eq!(order.customer, customer);
        let lines: Vec<(&str, i64)> = order.lines.iter().map(|it| (it.0.as_str(), it.1)).collect();
        let expected = [
            ("SKU-00000-e220a8397b1dcdaf771b652c20", 1),
            ("SKU-00005-63033b0ca389c35ae3d92c0f81", 3),
            ("SKU-01674-4cc766a0bdf3029f683bcb783d", 2),
            ("SKU-00571-9f1c39b1a3942c1a7cf78a4f2a", 1),
        ];
        assert_eq!(lines, expected);
        let product = generator.product(&order.tenant, lines[0].0);
        assert_eq!((product.price_minor, product.tax_class), (8_855, Some("zero")));
        assert_eq!(generator.order(99_999).lines.len(), 5);
    }

    #[test]
    fn orders_follow_the_laws_they_are_drawn_from() {
        let generator = Generator::new(1, SKUS);
        let orders: Vec<_> = (0..20_000).map(|it| generator.order(it)).collect();
        let lines: usize = orders.iter().map(|it| it.lines.len()).sum();
        let mean = lines as f64 / orders.len() as f64;
        assert!((2.45..2.55).contains(&mean), "{mean}");
        assert!(orders.iter().all(|it| (1..=5).contains(&it.lines.len())));
        assert!(orders.iter().flat_map(|it| &it.lines).all(|it| (1..=3).contains(&it.1)));
        let first = orders.iter().filter(|it| it.tenant == generator.tenants()[0]).count();
        let share = first as f64 / orders.len() as f64;
        assert!((0.26..0.30).contains(&share), "1 / H(20) of all orders: {share}");
        let ids: BTreeSet<_> = orders.into_iter().map(|it| it.into_command(1).order_id).collect();
        assert_eq!(ids.len(), 20_000);
    }

    #[test]
    fn bodies_are_json_that_names_what_the_command_names() {
        let order = Generator::new(3, 100).order(1);
        let body: serde_json::Value = serde_json::from_str(&order.json(true)).unwrap();
        assert_eq!(body["idempotency_key"], order.reference.as_str());
        assert_eq!(body["lines"].as_array().unwrap().len(), order.lines.len());
        let single: serde_json::Value = serde_json::from_str(&order.json(false)).unwrap();
        assert!(single.get("idempotency_key").is_none());
        let command = order.clone().into_command(5);
        let OrderCommandPayload::PlaceOrder(place) = command.payload else { panic!("a place order") };
        assert_eq!(place.lines[0].sku, body["lines"][0]["sku"].as_str().unwrap());
        assert_eq!(place.lines[0].quantity, body["lines"][0]["quantity"].as_i64().unwrap());
    }
}
