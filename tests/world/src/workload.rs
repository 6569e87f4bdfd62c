//! Plans from seeds: what clients do, and among it what goes wrong.

use crate::plan::{Action, Client, Fault, Operator, Place, Plan, Power, Step};
use crate::tuning::Tuning;
use tillstream_random::Random;

/// Tenants.
pub const TENANTS: u8 = 2;
/// SKUs of a tenant. The first are hot, the last is a fee that holds no stock.
pub const SKUS: u8 = 8;
/// Hot SKUs.
const HOT: u8 = 2;
/// Workers.
pub const WORKERS: u8 = 3;

/// Beyond this every hold has expired, ms.
const HOLDS_OVER_MS: i64 = 1_000_000;

/// How large a history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Commands of clients, besides the first products and stock.
    pub commands: usize,
    /// Faults, at least.
    pub faults_min: usize,
    /// Whether operators act.
    pub operators: bool,
    /// One process on the embedded store, and not three in a cluster.
    pub embedded: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self { commands: 180, faults_min: 3, operators: true, embedded: false }
    }
}

struct Draft {
    random: Random,
    steps: Vec<Step>,
    orders: u32,
    embedded: bool,
    /// Nobody asks anything for a while.
    lull: bool,
    /// Products that came later.
    launched: u8,
    /// Order and step of every shipment.
    shipments: Vec<(u32, u32)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64, size: Size) -> Self {
        let mut random = Random::new(seed);
        let tuning = Tuning::draw(&mut random);
        let mut draft = Draft {
            random,
            steps: Vec::new(),
            orders: 0,
            embedded: size.embedded,
            lull: false,
            launched: 0,
            shipments: Vec::new(),
        };
        draft.open_shop();
        let faults = size.faults_min + draft.random.below(4);
        let mut at: Vec<usize> = (0..faults).map(|_| draft.random.below(size.commands.max(1))).collect();
        at.sort_unstable();
        let operator = (size.operators && !size.embedded && draft.random.percent(25))
            .then(|| draft.random.below(size.commands.max(1)));
        let count = draft.below(4);
        let lulls: Vec<usize> = (0..count).map(|_| draft.random.below(size.commands.max(1))).collect();
        if !size.embedded && draft.random.percent(15) {
            // Tasks begin for the first time.
            let fault = draft.pause_at();
            draft.steps.insert(0, Step { number: Step::EARLY, wait_ms: 0, action: Action::Fault(fault) });
        }
        for number in 0..size.commands {
            draft.lull = lulls.contains(&number);
            while at.first() == Some(&number) {
                at.remove(0);
                draft.fault();
            }
            if operator == Some(number) {
                draft.operator();
            }
            draft.command();
        }
        Self { seed, tuning, embedded: size.embedded, steps: draft.steps }
    }
}

impl Draft {
    fn push(&mut self, wait_ms: u32, action: Action) {
        let number = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        self.steps.push(Step { number, wait_ms, action });
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.below(bound as usize) as u32
    }

    fn between(&mut self, least: i64, most: i64) -> i64 {
        least + self.random.below(usize::try_from(most - least + 1).unwrap_or(1)) as i64
    }

    /// The first products and their stock.
    fn open_shop(&mut self) {
        for tenant in 0..TENANTS {
            for sku in 0..SKUS {
                let price_minor = self.between(1, 90) * 25;
                let class = self.below(3) as u8;
                self.push(
                    0,
                    Action::Client(Client::Product { tenant, sku, price_minor, class, active: true }),
                );
                if sku != SKUS - 1 {
                    let delta = if sku < HOT { self.between(5, 40) } else { self.between(20, 400) };
                    self.push(0, Action::Client(Client::Adjust { tenant, sku, delta, location: 0 }));
                }
            }
        }
    }

    fn sku(&mut self) -> u8 {
        if self.random.percent(40) {
            self.below(u32::from(HOT)) as u8
        } else {
            self.below(u32::from(SKUS)) as u8
        }
    }

    fn order(&mut self) -> u32 {
        // Mostly a recent one: something is still going on there.
        let recent = self.orders.min(12);
        if self.random.percent(80) {
            self.orders - 1 - self.below(recent)
        } else {
            self.below(self.orders + 2)
        }
    }

    fn place(&mut self) -> Place {
        let order = self.orders;
        self.orders += 1;
        let count = match self.below(50) {
            0 => self.between(20, 50),
            1..=5 => self.between(4, 9),
            _ => self.between(1, 3),
        };
        let lines = (0..count)
            .map(|_| {
                let own = self.random.percent(10).then(|| self.between(0, 3_000));
                let off = if self.random.percent(10) { self.between(0, 500) } else { 0 };
                (self.sku(), self.between(1, 3), own, off)
            })
            .collect();
        let method = match self.below(20) {
            0 | 1 => 1,
            2 | 3 => 2,
            _ => 0,
        };
        Place {
            order,
            lines,
            discount_minor: self.random.percent(8).then(|| self.between(1, 4_000)),
            discount_bp: self.random.percent(8).then(|| self.between(1, 5_000) as i32),
            shipping_minor: self.random.percent(10).then(|| self.between(0, 900)),
            method,
            manual: self.random.percent(20),
            country: self.below(3) as u8,
            age_ms: if self.random.percent(15) { self.between(-60_000, 400_000) } else { 0 },
        }
    }

    fn command(&mut self) {
        let wait_ms = match self.below(20) {
            0..=11 => 0,
            12..=17 => self.below(30),
            _ => self.below(300),
        };
        // Time goes by: sessions end, checkpoints move, transactions time out.
        let wait_ms = if self.lull { 1_000 + self.below(15_000) } else { wait_ms };
        if self.launched < 40 && self.random.percent(2) {
            return self.launch(wait_ms);
        }
        let client = if self.orders == 0 || self.random.percent(38) {
            Client::Place(self.place())
        } else {
            self.later()
        };
        self.push(wait_ms, Action::Client(client));
    }

    /// A new product, some of it, and an order for it as soon as the product is there.
    fn launch(&mut self, wait_ms: u32) {
        let (mut place, sku) = (self.place(), SKUS + self.launched);
        self.launched += 1;
        let tenant = (place.order % u32::from(TENANTS)) as u8;
        place.lines.push((sku, 1, None, 0));
        let product = Client::Product {
            tenant,
            sku,
            price_minor: self.between(1, 90) * 25,
            class: self.below(3) as u8,
            active: true,
        };
        if self.random.percent(50) {
            let delta = self.between(1, 20);
            self.push(wait_ms, Action::Client(Client::Adjust { tenant, sku, delta, location: 0 }));
        }
        self.push(wait_ms, Action::Client(product));
        self.push(0, Action::Client(Client::Place(place)));
    }

    fn commands(&mut self, count: usize) {
        for _ in 0..count {
            self.command();
        }
    }

    /// A command about what is there already.
    fn later(&mut self) -> Client {
        let order = self.order();
        let (tenant, number) = (self.below(u32::from(TENANTS)) as u8, self.steps.len() as u32);
        match self.below(100) {
            0..=11 => Client::Cancel { order },
            12..=17 => Client::Capture {
                order,
                amount_minor: self.random.percent(20).then(|| self.between(1, 2_000)),
            },
            18..=27 => Client::Refund {
                order,
                amount_minor: self.random.percent(60).then(|| self.between(1, 1_500)),
            },
            28..=42 => {
                self.shipments.push((order, number));
                let line = self.random.percent(35).then(|| (self.sku(), self.between(1, 3)));
                Client::Ship { order, line }
            }
            43..=52 if !self.shipments.is_empty() => {
                let index = self.random.below(self.shipments.len());
                let (order, shipped_by) = self.shipments[index];
                Client::Deliver { order, shipped_by }
            }
            43..=58 => Client::Return {
                order,
                sku: self.sku(),
                quantity: self.between(1, 3),
                restock: self.random.percent(80),
            },
            59..=69 => Client::Adjust {
                tenant,
                sku: self.sku(),
                delta: match self.between(-15, 40) {
                    0 => 1,
                    it => it,
                },
                location: self.below(2) as u8,
            },
            70..=77 => Client::Product {
                tenant,
                sku: self.sku(),
                price_minor: self.between(1, 90) * 25,
                class: self.below(3) as u8,
                active: !self.random.percent(12),
            },
            78 | 79 => Client::Rule { version: self.below(5) },
            80..=85 => Client::Act {
                order,
                agrees: self.random.percent(75),
                copies: 1 + self.below(3) as u8,
                late_ms: self.below(4_000),
            },
            86..=93 => Client::Again { step: self.below(number), altered: self.random.percent(25) },
            94 => Client::Poison { items: self.random.percent(50) },
            95 | 96 => Client::Malformed { items: self.random.percent(50), salt: self.below(1 << 20) },
            97 => Client::Misplaced { order },
            _ => Client::Redrive,
        }
    }

    fn worker(&mut self) -> u8 {
        self.below(u32::from(WORKERS)) as u8
    }

    /// Short, or beyond every timeout.
    fn some_ms(&mut self) -> u32 {
        match self.below(3) {
            0 => self.below(400),
            1 => self.below(3_000),
            _ => 5_000 + self.below(10_000),
        }
    }

    fn power(&mut self) -> Power {
        match self.below(4) {
            0 => Power::Stays,
            1 => Power::Nothing,
            _ => Power::Torn(self.below(u32::MAX)),
        }
    }

    /// What goes wrong with one process and its disk.
    fn fault_alone(&mut self) {
        let wait_ms = self.below(60);
        let (power, down_ms) = (self.power(), self.some_ms());
        let fault = match self.below(20) {
            0..=8 => Fault::Cut {
                calls: Some(self.below(150)),
                point: self.below(3) as u8,
                power,
                down_ms: down_ms.min(3_000),
            },
            9..=11 => Fault::Cut { calls: None, point: 0, power, down_ms },
            12 | 13 => Fault::SyncFails { syncs: self.below(40), power, down_ms: down_ms.min(3_000) },
            14 | 15 => Fault::Full { calls: self.below(60), for_ms: down_ms.min(6_000) },
            16 => Fault::Scarce { percent: self.below(110) as u8, for_ms: down_ms.min(6_000) },
            17 => Fault::Stop { worker: 0, down_ms: down_ms.min(3_000) },
            18 => match self.below(2) {
                0 => Fault::ClockJump { by_ms: self.between(-5_000, 5_000) },
                _ => Fault::ClockJump { by_ms: 1_000_000 },
            },
            _ => Fault::Provider { kind: self.below(4) as u8, calls: 1 + self.below(12) as u8 },
        };
        self.push(wait_ms, Action::Fault(fault));
    }

    fn fault(&mut self) {
        if self.embedded {
            return self.fault_alone();
        }
        let wait_ms = self.below(60);
        let (worker, for_ms) = (self.worker(), self.some_ms());
        let fault = match self.below(32) {
            0..=3 => Fault::Kill { worker, calls: self.below(120), down_ms: for_ms },
            4 => Fault::Kill { worker, calls: 0, down_ms: for_ms },
            5 => Fault::Stop { worker, down_ms: for_ms },
            6 | 7 => Fault::Pause { worker, for_ms },
            8 => Fault::CutOff { worker, for_ms },
            9 => Fault::Expel { member: self.below(12) as u8, for_ms: for_ms.min(4_000) },
            10 => Fault::StrayAbort { task: self.below(8) as u8 },
            11..=13 => Fault::UnknownCommit {
                task: self.random.percent(50).then(|| self.below(8) as u8),
                fate: self.below(3) as u8,
            },
            14 => Fault::LateCommits,
            15 => Fault::CoordinatorMoves { for_ms: for_ms.min(9_000) },
            16..=18 => Fault::BrokerCall {
                call: self.below(10) as u8,
                skip: self.below(6) as u8,
                full: self.random.percent(50),
                error: self.below(3) as u8,
            },
            19 => Fault::MarkersHeld { for_ms: for_ms.min(2_000) },
            20 => Fault::BrokerAway { for_ms },
            21 => Fault::Compact,
            22 => Fault::DatabaseCrash { all: self.random.percent(50) },
            23 => Fault::DatabaseAway { for_ms },
            24 => match self.below(2) {
                0 => Fault::DatabaseSlow { call_ms: 20 + self.below(400), for_ms: for_ms.min(5_000) },
                _ => Fault::WritesHeld { for_ms: for_ms.min(6_000) },
            },
            25 => Fault::DatabaseCall { call: self.below(6) as u8, fate: self.below(4) as u8 },
            26 => match self.below(3) {
                0 => Fault::ClockJump { by_ms: self.between(-5_000, 5_000) },
                1 => Fault::ClockJump { by_ms: 1_000_000 },
                _ => Fault::LateWrites,
            },
            27 => Fault::BrokerSlow { call_ms: 200 + self.below(4_700), for_ms },
            28 | 29 => self.pause_at(),
            30 => return self.age(),
            _ => Fault::Provider { kind: self.below(4) as u8, calls: 1 + self.below(12) as u8 },
        };
        self.push(wait_ms, Action::Fault(fault));
    }

    /// All holds are over; then new ones wait for customers who do nothing, and grow old under lives that have their timers
    /// from the tables alone.
    fn age(&mut self) {
        self.jump(0, HOLDS_OVER_MS);
        let by_ms = self.between(610_000, 700_000);
        if self.random.percent(50) {
            // The first of them end while the next stretch of timers is read.
            let first = self.wait_for_customers(2_500);
            for order in first..first + 5 {
                let wait_ms = if order == first { 14_000 } else { 0 };
                self.push(wait_ms, Action::Client(Client::Cancel { order }));
            }
            let wait_ms = self.below(60);
            self.jump(wait_ms, by_ms);
        } else {
            // There is none when the next stretch is read, and a checkpoint says so.
            self.jump(2_500, by_ms);
            for order in 0..6 {
                self.push(0, Action::Client(Client::Cancel { order }));
            }
            self.wait_for_customers(18_000);
            self.kill_all(150);
        }
        self.commands(2);
        self.kill_all(20_000);
    }

    fn jump(&mut self, wait_ms: u32, by_ms: i64) {
        self.push(wait_ms, Action::Fault(Fault::ClockJump { by_ms }));
    }

    fn kill_all(&mut self, wait_ms: u32) {
        let down_ms = self.below(300);
        self.push(wait_ms, Action::Fault(Fault::KillAll { down_ms }));
    }

    /// Places orders whose payment asks for something; tells the first.
    fn wait_for_customers(&mut self, wait_ms: u32) -> u32 {
        let first = self.orders;
        for _ in 0..8 {
            let place = Place { method: 2, lines: vec![(SKUS - 2, 1, None, 0)], ..self.place() };
            let wait_ms = if place.order == first { wait_ms } else { 0 };
            self.push(wait_ms, Action::Client(Client::Place(place)));
        }
        first
    }

    /// A worker stands still in the middle of something, mostly until another has its partitions, and that one's checkpoint
    /// is told.
    fn pause_at(&mut self) -> Fault {
        let for_ms = if self.random.percent(20) { self.some_ms() } else { 7_000 + self.below(25_000) };
        Fault::PauseAt { call: self.below(8) as u8, skip: self.below(8) as u8, for_ms }
    }

    fn operator(&mut self) {
        let wait_ms = if self.random.percent(50) { self.below(500) } else { 8_000 + self.below(18_000) };
        let operator = match self.below(7) {
            0 => {
                self.push(0, Action::Operator(Operator::Backup));
                self.commands(12);
                Operator::Restore { noticed: false }
            }
            1 => {
                self.push(0, Action::Operator(Operator::Peace));
                self.push(0, Action::Operator(Operator::Backup));
                self.commands(12);
                // By then whatever was committed is surely on the database's disks, and its checkpoint, too.
                self.push(40_000, Action::Operator(Operator::Note));
                self.commands(12);
                return self.push(500, Action::Operator(Operator::Restore { noticed: true }));
            }
            2 => Operator::Truncate { table: self.below(10) as u8 },
            3 => Operator::Rebuild,
            4 => Operator::ResetOffsets { kind: self.below(2) as u8 },
            5 => Operator::RecreateChangelog { kind: self.below(3) as u8 },
            _ => {
                let kind = self.below(3) as u8;
                self.push(wait_ms, Action::Operator(Operator::RecreateUnder { kind }));
                self.commands(12);
                return self.push(1_000, Action::Operator(Operator::Adopt));
            }
        };
        self.push(wait_ms, Action::Operator(operator));
    }
}
