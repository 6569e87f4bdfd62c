//! Ways to spend all of a call's fuel, each as dear as somebody could make it who wants the host's time for it.

/// A way to spend all of a call's fuel: what it does, what its module declares for it, and its instructions.
pub type Waste = (&'static str, &'static str, &'static str);

/// All the memory there is, each of its pages for the first time, and all the fuel: a budget, whole.
pub const WHOLE_BUDGET: Waste = (
        "writes to every page, then counts",
        "",
        "(local $x i32) (drop (memory.grow (i32.const 248)))
         (loop $p (i32.store (local.get $x) (i32.const 1))
           (br_if $p (i32.lt_u (local.tee $x (i32.add (local.get $x) (i32.const 4096))) (i32.const 16777216))))
         (loop $l (br $l)) unreachable",
    );

/// Fuel counts instructions, not what they wait for: the slowest that are known.
pub const WAITS: [Waste; 2] = [
    (
        "reads and writes where no cache helps",
        "",
        "(local $x i32) (local $at i32) (drop (memory.grow (i32.const 248)))
         (loop $l
           (local.set $at (i32.and (local.get $x) (i32.const 0xfffff8)))
           (local.set $x (i32.add (i32.load (local.get $at))
             (i32.add (i32.mul (local.get $x) (i32.const 1664525)) (i32.const 1013904223))))
           (i32.store (local.get $at) (local.get $x)) (br $l)) unreachable",
    ),
    (
        "reads what it has just written across the end of a page",
        "",
        "(loop $l (i64.store (i32.const 8188) (i64.add (i64.load (i32.const 8188)) (i64.const 1))) (br $l))
         unreachable",
    ),
];

/// All the fuel, each by something else: what a processor is slow at, and what the host does for a module.
pub const WASTES: [Waste; 21] = [
    ("counts", "", "(loop $l (br $l)) unreachable"),
    (
        "divides whole numbers",
        "",
        "(loop $l (drop (i64.div_s (i64.load (i32.const 8)) (i64.const 3))) (br $l)) unreachable",
    ),
    (
        "divides by what it has just divided",
        "",
        "(local $x i64) (local.set $x (i64.const -1))
         (loop $l (local.set $x (i64.or (i64.rem_u (i64.const -3) (local.get $x)) (i64.const 0x7ffffffffffffff)))
           (br $l)) unreachable",
    ),
    (
        "takes roots",
        "",
        "(local $x f64) (local.set $x (f64.const 1e300))
         (loop $l (local.set $x (f64.sqrt (f64.div (f64.const 3) (local.get $x)))) (br $l)) unreachable",
    ),
    (
        "calls through a table",
        "(type $nothing (func)) (table 8 funcref) (func $none) (elem (i32.const 0) $none $none $none $none)",
        "(local $x i32)
         (loop $l (local.set $x (i32.and (i32.add (local.get $x) (i32.const 1)) (i32.const 3)))
           (call_indirect (type $nothing) (local.get $x)) (br $l)) unreachable",
    ),
    (
        "multiplies fractions",
        "",
        "(local $x f64) (local.set $x (f64.const 1))
         (loop $l (local.set $x (f64.mul (local.get $x) (f64.const 1.000001))) (br $l)) unreachable",
    ),
    (
        "rounds",
        "",
        "(local $x f64) (local.set $x (f64.const 1e9))
         (loop $l (local.set $x (f64.nearest (f64.floor (local.get $x)))) (br $l)) unreachable",
    ),
    (
        "makes whole numbers of fractions",
        "",
        "(local $x i64) (loop $l
           (local.set $x (i64.trunc_sat_f64_u (f64.convert_i64_u (local.get $x)))) (br $l)) unreachable",
    ),
    (
        "grows memory in vain",
        "",
        "(drop (memory.grow (i32.const 248))) (loop $l (drop (memory.grow (i32.const 1))) (br $l)) unreachable",
    ),
    ("grows memory by nothing", "", "(loop $l (drop (memory.grow (i32.const 0))) (br $l)) unreachable"),
    (
        "grows memory page by page, then counts",
        "",
        "(loop $g (br_if $g (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (loop $l (br $l)) unreachable",
    ),
    (
        "fills nothing",
        "",
        "(loop $l (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)) (br $l)) unreachable",
    ),
    (
        "fills 64 KiB",
        "",
        "(loop $l (memory.fill (i32.const 0) (i32.const 7) (i32.const 65536)) (br $l)) unreachable",
    ),
    (
        "fills its memory once",
        "",
        "(drop (memory.grow (i32.const 248)))
         (loop $l (memory.fill (i32.const 0) (i32.const 7) (i32.const 10000000)) (br $l)) unreachable",
    ),
    (
        "copies a byte",
        "",
        "(loop $l (memory.copy (i32.const 0) (i32.const 9) (i32.const 1)) (br $l)) unreachable",
    ),
    (
        "copies what overlaps",
        "",
        "(loop $l (memory.copy (i32.const 1) (i32.const 0) (i32.const 65536)) (br $l)) unreachable",
    ),
    (
        "copies half of its memory",
        "",
        "(drop (memory.grow (i32.const 248)))
         (loop $l (memory.copy (i32.const 8388608) (i32.const 0) (i32.const 5000000)) (br $l)) unreachable",
    ),
    (
        "grows a table in vain",
        "(table $t 10000 funcref)",
        "(loop $l (drop (table.grow $t (ref.null func) (i32.const 1))) (br $l)) unreachable",
    ),
    (
        "fills a table",
        "(table $t 10000 funcref)",
        "(loop $l (table.fill $t (i32.const 0) (ref.null func) (i32.const 10000)) (br $l)) unreachable",
    ),
    (
        "copies a table's element",
        "(table $t 10000 funcref)",
        "(loop $l (table.copy $t $t (i32.const 0) (i32.const 9) (i32.const 1)) (br $l)) unreachable",
    ),
    (
        "logs lines without a word",
        r#"(import "tillstream:rules/log@1.0.0" "line" (func $line (param i32 i32)))"#,
        "(loop $l (call $line (i32.const 0) (i32.const 0)) (br $l)) unreachable",
    ),
];
