//! Which changes a schema may see: Avro's resolution rules, applied as each subject's policy says.

use crate::avsc::{Field, Type};
use serde_json::json;
use tillstream_schemas::codec::{Compatibility, Schema};

/// Why data written with `writer` cannot be read with `reader`; empty when it can.
///
/// Avro's rules, less two that this project does not use: aliases, and reading a string as bytes.
pub fn refusals(reader: &Type, writer: &Type, path: &str) -> Vec<String> {
    let no = |why: String| vec![format!("{path}: {why}")];
    match (reader, writer) {
        (reader, Type::Union(branches)) => {
            branches.iter().flat_map(|branch| refusals(reader, branch, path)).collect()
        }
        (Type::Union(branches), writer) => {
            // A record must meet the branch of its name, so that the answer says what is wrong inside it.
            let named = branches.iter().find(|branch| branch.full_name() == writer.full_name());
            match named.or_else(|| branches.iter().find(|it| refusals(it, writer, path).is_empty())) {
                Some(branch) => refusals(branch, writer, path),
                None => no(format!("no branch reads {}", writer.full_name())),
            }
        }
        (Type::Record { name, fields }, Type::Record { name: theirs, fields: written }) if name == theirs => {
            let field = |field: &Field| match written.iter().find(|it| it.name == field.name) {
                Some(it) => refusals(&field.ty, &it.ty, &format!("{path}.{}", field.name)),
                None if field.default.is_some() => vec![],
                None => no(format!("field {} is not written and has no default", field.name)),
            };
            fields.iter().flat_map(field).collect()
        }
        (Type::Enum { name, symbols }, Type::Enum { name: theirs, symbols: written }) if name == theirs => {
            let unknown = written.iter().filter(|symbol| !symbols.contains(symbol));
            unknown.flat_map(|symbol| no(format!("symbol {symbol} is not known"))).collect()
        }
        (Type::Array(item), Type::Array(written)) | (Type::Map(item), Type::Map(written)) => {
            refusals(item, written, &format!("{path}[]"))
        }
        // `timestamp-millis` only says how to show a long.
        (Type::Long { .. }, Type::Long { .. } | Type::Int) => vec![],
        (reader, writer) if reader == writer => vec![],
        (reader, writer) => no(format!("{} cannot be read as {}", writer.full_name(), reader.full_name())),
    }
}

/// Why `new` may not follow `old` under the policy; empty when it may.
pub fn violations(policy: Compatibility, new: &Type, old: &Type) -> Vec<String> {
    let mut violations = refusals(new, old, "new reader of old data");
    if policy == Compatibility::FullTransitive {
        violations.extend(refusals(old, new, "old reader of new data"));
    }
    violations
}

/// Holds every mutant of every schema against the verdicts: (backward, full) accepted?
fn judge(backward: bool, full: bool, mutations: &dyn Fn(&Type) -> Vec<Type>) {
    let mut judged = 0;
    for &schema in Schema::ALL {
        let old = Type::parse(schema.avsc());
        for new in old.mutants(mutations) {
            for (policy, accepted) in
                [(Compatibility::BackwardTransitive, backward), (Compatibility::FullTransitive, full)]
            {
                let found = violations(policy, &new, &old);
                assert_eq!(found.is_empty(), accepted, "{schema:?} {policy:?} {found:?}");
            }
            judged += 1;
        }
    }
    assert!(judged > 0, "nothing was judged");
}

/// Every way to drop one field that `which` picks.
fn without_field(ty: &Type, which: impl Fn(&Field) -> bool) -> Vec<Type> {
    let Type::Record { name, fields } = ty else { return vec![] };
    let without = |at: usize| {
        let mut fields = fields.clone();
        fields.remove(at);
        Type::Record { name: name.clone(), fields }
    };
    (0..fields.len()).filter(|&at| which(&fields[at])).map(without).collect()
}

fn with_field(ty: &Type, default: Option<serde_json::Value>) -> Vec<Type> {
    let Type::Record { name, fields } = ty else { return vec![] };
    let mut fields = fields.clone();
    fields.push(Field { name: "brand_new".into(), ty: Type::Text, default });
    vec![Type::Record { name: name.clone(), fields }]
}

#[test]
fn a_schema_may_follow_itself() {
    judge(true, true, &|ty| vec![ty.clone()]);
}

#[test]
fn a_field_with_a_default_may_come_and_go() {
    judge(true, true, &|ty| with_field(ty, Some(json!(""))));
    judge(true, true, &|ty| without_field(ty, |field| field.default.is_some()));
}

#[test]
fn a_new_field_without_a_default_is_refused() {
    judge(false, false, &|ty| with_field(ty, None));
}

#[test]
fn a_field_without_a_default_may_not_leave_what_anybody_may_read() {
    judge(true, false, &|ty| without_field(ty, |field| field.default.is_none()));
}

#[test]
fn another_type_is_refused() {
    judge(false, false, &|ty| match ty {
        Type::Text => vec![Type::Long { timestamp: false }, Type::Bytes, Type::Boolean],
        Type::Bytes => vec![Type::Text],
        Type::Long { .. } => vec![Type::Text, Type::Int],
        Type::Int => vec![Type::Text],
        Type::Boolean => vec![Type::Int],
        Type::Array(item) => vec![Type::Map(item.clone()), (**item).clone()],
        Type::Map(item) => vec![Type::Array(item.clone())],
        Type::Enum { .. } => vec![Type::Text],
        Type::Record { fields, .. } => vec![Type::Record { name: "Renamed".into(), fields: fields.clone() }],
        _ => vec![],
    });
    // An int may grow: new readers read it, old readers cannot read a long.
    judge(true, false, &|ty| if *ty == Type::Int { vec![Type::Long { timestamp: false }] } else { vec![] });
}

#[test]
fn a_removed_branch_is_refused_and_a_new_one_only_where_old_readers_matter() {
    judge(false, false, &|ty| match ty {
        Type::Union(branches) if branches.len() > 1 => {
            let without = |at: usize| {
                let mut branches = branches.clone();
                branches.remove(at);
                Type::Union(branches)
            };
            (0..branches.len()).map(without).collect()
        }
        _ => vec![],
    });
    judge(true, false, &|ty| match ty {
        Type::Union(branches) => {
            let new = Type::Record { name: "BrandNew".into(), fields: vec![] };
            vec![Type::Union(branches.iter().cloned().chain([new]).collect())]
        }
        _ => vec![],
    });
}

#[test]
fn a_removed_symbol_is_refused_and_a_new_one_only_where_old_readers_matter() {
    judge(false, false, &|ty| match ty {
        Type::Enum { name, symbols } => {
            let without = |at: usize| {
                let mut symbols = symbols.clone();
                symbols.remove(at);
                Type::Enum { name: name.clone(), symbols }
            };
            (0..symbols.len()).map(without).collect()
        }
        _ => vec![],
    });
    judge(true, false, &|ty| match ty {
        Type::Enum { name, symbols } => {
            let symbols = symbols.iter().cloned().chain(["brand_new".into()]).collect();
            vec![Type::Enum { name: name.clone(), symbols }]
        }
        _ => vec![],
    });
}

#[test]
fn a_value_may_become_optional_only_where_old_readers_do_not_matter() {
    judge(true, false, &|ty| {
        let Type::Record { name, fields } = ty else { return vec![] };
        let optional = |at: usize| {
            let mut fields = fields.clone();
            fields[at].ty = Type::Union(vec![Type::Null, fields[at].ty.clone()]);
            Type::Record { name: name.clone(), fields }
        };
        let is_union = |at: &usize| matches!(fields[*at].ty, Type::Union(_));
        (0..fields.len()).filter(|at| !is_union(at)).map(optional).collect()
    });
}
