//! What runs Tillstream, as tests: compose file, alerts and dashboards name only what there is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_yaml_ng::Value as Yaml;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Yaml {
    let mut found: Yaml =
        serde_yaml_ng::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    // Once per level of `<<` within `<<`.
    for _ in 0..3 {
        found.apply_merge().unwrap();
    }
    found
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Every maximal run of characters that `belongs` accepts and that begins with `prefix`.
fn words<'a>(text: &'a str, prefix: &str, belongs: fn(char) -> bool) -> BTreeSet<&'a str> {
    text.split(|it| !belongs(it)).filter(|it| it.starts_with(prefix) && it.len() > prefix.len()).collect()
}

fn in_metric(it: char) -> bool {
    it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_'
}

fn in_variable(it: char) -> bool {
    it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_'
}

fn str_of<'a>(value: &'a Yaml, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value:?} is no text"))
}

/// Whether a text ends where a call that may name a metric takes its first argument.
fn call_of(before: &str) -> bool {
    let before = before.trim_end();
    before.ends_with('(') && !before.ends_with(".namespace(")
}

/// A metric of the code, and whether it is a histogram.
fn registered() -> Vec<(String, bool)> {
    let mut sources = Vec::new();
    for folder in ["processors", "ingest-api/src", "src"] {
        files(&root().join(folder), &mut sources);
    }
    let mut metrics = Vec::new();
    for path in sources.iter().filter(|it| it.extension().is_some_and(|it| it == "rs")) {
        let source = fs::read_to_string(path).unwrap();
        // Code alone: comments, and tests at a file's end, name metrics without making any.
        let code = source.split("#[cfg(test)]").next().unwrap();
        if !code.contains("prometheus::") {
            continue;
        }
        let namespaced = code.contains(".namespace(\"tillstream\")");
        let parts: Vec<&str> = code.split('"').collect();
        for pair in parts.windows(2).step_by(2) {
            let [before, literal] = pair else { continue };
            let line = before.rsplit('\n').next().unwrap();
            if line.trim_start().starts_with("//") || literal.is_empty() || !literal.chars().all(in_metric) {
                continue;
            }
            let call: String = before.chars().rev().take_while(|it| !matches!(it, ';' | '?')).collect();
            let histogram = call.contains("margotsi"); // "histogram" without its first letter, backwards
            if literal.starts_with("tillstream_") {
                metrics.push(((*literal).to_owned(), histogram));
            } else if namespaced && call_of(before) && before.contains("on.") {
                metrics.push((format!("tillstream_{literal}"), histogram));
            }
        }
    }
    assert!(metrics.len() > 25, "found only {metrics:?}");
    metrics
}

#[test]
fn dashboards_and_alerts_name_only_metrics_that_there_are() {
    let metrics = registered();
    let known =
        |name: &str, histogram: bool| metrics.iter().any(|(it, kind)| it == name && *kind == histogram);
    let mut used = Vec::new();
    files(&root().join("ops/prometheus"), &mut used);
    files(&root().join("ops/grafana"), &mut used);
    files(&root().join("ops/runbooks"), &mut used);
    let mut seen = 0;
    for path in used {
        let text = fs::read_to_string(&path).unwrap();
        let is_page = path.extension().is_some_and(|it| it == "md");
        for word in words(&text, "tillstream_", in_metric) {
            let series = ["_bucket", "_sum", "_count"].iter().find_map(|it| word.strip_suffix(it));
            // A histogram has no series of its bare name, but a page may speak of it.
            let exists = known(word, false)
                || series.is_some_and(|it| known(it, true))
                || (is_page && known(word, true));
            assert!(exists, "{}: no such metric: {word}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} names of metrics were found");
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let dashboard = text("ops/grafana/dashboards/tillstream.json");
    for (name, _) in registered() {
        assert!(dashboard.contains(&name), "{name} is shown nowhere");
    }
}

#[test]
fn every_panel_asks_the_provisioned_data_source() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("ops/grafana/dashboards/tillstream.json")).unwrap();
    let uid = yaml("ops/grafana/provisioning/datasources/prometheus.yml");
    let uid = str_of(&uid["datasources"][0], "uid");
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have the id {}", panel["id"]);
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(panel["type"] == "row" || !targets.is_empty(), "{} asks nothing", panel["title"]);
        for target in targets {
            assert_eq!(target["datasource"]["uid"], uid, "{}", panel["title"]);
        }
    }
}

#[test]
fn every_alert_has_a_runbook_and_a_test_and_no_runbook_is_left_over() {
    let alerts = yaml("ops/prometheus/alerts.yml");
    let cases = yaml("ops/prometheus/alerts_test.yml");
    let fires = |name: &str| {
        let tests = cases["tests"].as_sequence().unwrap();
        let checks = tests.iter().flat_map(|it| it["alert_rule_test"].as_sequence().unwrap());
        let mut checks = checks.filter(|it| str_of(it, "alertname") == name);
        checks.any(|it| !it["exp_alerts"].as_sequence().unwrap().is_empty())
    };
    let mut names = BTreeSet::new();
    for rule in
        alerts["groups"].as_sequence().unwrap().iter().flat_map(|it| it["rules"].as_sequence().unwrap())
    {
        if rule.get("alert").is_none() {
            continue;
        }
        let name = str_of(rule, "alert");
        let page = format!("ops/runbooks/{name}.md");
        assert_eq!(str_of(&rule["annotations"], "runbook_url"), page);
        assert!(text(&page).starts_with(&format!("# {name}\n")), "{page}");
        for part in ["## What it means", "## Where to look", "## What to do"] {
            assert!(text(&page).contains(part), "{page} has no '{part}'");
        }
        assert!(["page", "ticket"].contains(&str_of(&rule["labels"], "severity")), "{name}");
        assert!(fires(name), "no case of alerts_test.yml makes {name} fire");
        names.insert(name.to_owned());
    }
    let mut pages = Vec::new();
    files(&root().join("ops/runbooks"), &mut pages);
    let pages: BTreeSet<String> =
        pages.iter().map(|it| it.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, pages, "left: alerts; right: ops/runbooks");
}

/// `name:tag` with a full version or a date in the tag, or a digest.
fn is_pinned(image: &str) -> bool {
    if let Some((_, digest)) = image.split_once("@sha256:") {
        return digest.len() == 64;
    }
    let tag = image.rsplit('/').next().unwrap().split_once(':').map_or("", |it| it.1);
    let version = tag.trim_start_matches('v').split('-').next().unwrap();
    let numbers = version.split('.').filter(|it| it.parse::<u32>().is_ok()).count();
    numbers == 3 || tag.split('-').any(|it| it.len() == 8 && it.parse::<u32>().is_ok())
}

#[test]
fn an_image_is_pinned_by_its_whole_version_a_date_or_a_digest() {
    for good in ["a/b:v25.3.6", "rust:1.95.0-bookworm", "debian:bookworm-20251229-slim", "r:5000/a:1.2.3"] {
        assert!(is_pinned(good), "{good}");
    }
    for bad in ["a", "a:latest", "a:12", "a:v3.5", "rust:1.95-slim", "r:5000/a", "a@sha256:abc"] {
        assert!(!is_pinned(bad), "{bad}");
    }
}

#[test]
fn images_are_pinned() {
    for (name, service) in services(&yaml("docker-compose.yml")) {
        let ours = service.get("build").is_some();
        assert!(ours || is_pinned(str_of(service, "image")), "{name}");
    }
    let dockerfile = text("Dockerfile");
    let bases: Vec<&str> =
        dockerfile.lines().filter_map(|it| it.strip_prefix("FROM ")?.split(' ').next()).collect();
    assert_eq!(bases.len(), 2);
    assert!(bases.iter().all(|it| is_pinned(it)), "{bases:?}");
    let rust = text("Cargo.toml");
    let rust = rust.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(bases[0].starts_with(&format!("rust:{rust}.")), "{} builds what wants Rust {rust}", bases[0]);
}

fn services(compose: &Yaml) -> Vec<(&str, &Yaml)> {
    let services = compose["services"].as_mapping().unwrap();
    services.iter().map(|(name, service)| (name.as_str().unwrap(), service)).collect()
}

fn dependencies(service: &Yaml) -> Vec<(&str, &str)> {
    let Some(wanted) = service.get("depends_on").and_then(Yaml::as_mapping) else { return Vec::new() };
    wanted.iter().map(|(name, it)| (name.as_str().unwrap(), str_of(it, "condition"))).collect()
}

#[test]
fn every_service_is_checked_for_its_health_or_is_waited_for_to_end() {
    let compose = yaml("docker-compose.yml");
    let all = services(&compose);
    assert!(all.len() >= 10, "{}", all.len());
    for (name, service) in &all {
        let waited: BTreeSet<&str> =
            all.iter().flat_map(|it| dependencies(it.1)).filter(|it| it.0 == *name).map(|it| it.1).collect();
        let health = &service["healthcheck"];
        if health["disable"].as_bool() == Some(true) {
            assert_eq!(
                waited,
                BTreeSet::from(["service_completed_successfully"]),
                "{name} has no health check"
            );
        } else {
            assert!(!health["test"].as_sequence().unwrap().is_empty(), "{name} has no health check");
            assert!(waited.is_subset(&BTreeSet::from(["service_healthy"])), "{name}: {waited:?}");
        }
        for (wanted, _) in dependencies(service) {
            assert!(all.iter().any(|it| it.0 == wanted), "{name} waits for {wanted}, which is not there");
        }
    }
}

#[test]
fn every_role_runs_somewhere() {
    let compose = yaml("docker-compose.yml");
    let mut roles: Vec<&str> = services(&compose)
        .iter()
        .filter_map(|it| it.1.get("environment")?.get("TILLSTREAM_ROLES")?.as_str())
        .flat_map(|it| it.split(','))
        .collect();
    roles.sort_unstable();
    assert_eq!(roles, ["analytics", "effects", "ingest", "item", "order", "webhooks"]);
}

#[test]
fn what_compose_mounts_is_there_and_its_ports_are_on_loopback() {
    let compose = yaml("docker-compose.yml");
    for (name, service) in services(&compose) {
        let list = |key: &str| service.get(key).and_then(Yaml::as_sequence).cloned().unwrap_or_default();
        for port in list("ports") {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port:?}");
        }
        for mount in list("volumes") {
            let from = mount.as_str().unwrap().split(':').next().unwrap();
            let there = match from.strip_prefix("./") {
                Some(path) => root().join(path).exists(),
                None => compose["volumes"].as_mapping().unwrap().contains_key(from),
            };
            assert!(there, "{name} mounts {from}");
        }
    }
}

/// The variables of the options, as the sources of the command line spell them.
fn options() -> String {
    let mut sources = vec![root().join("src/cli.rs")];
    files(&root().join("src/cli"), &mut sources);
    sources.iter().map(|it| fs::read_to_string(it).unwrap()).collect()
}

#[test]
fn every_variable_is_an_option_of_the_binary() {
    let options = options();
    for path in ["docker-compose.yml", "Dockerfile", "ops/docker/healthy", "docs/CLUSTER.md"] {
        let text = text(path);
        for variable in words(&text, "TILLSTREAM_", in_variable) {
            assert!(options.contains(&format!("env = \"{variable}\"")), "{path}: {variable} is no option");
        }
    }
}

#[test]
fn every_option_that_the_cluster_page_and_the_runbooks_name_is_one() {
    let options = options();
    let mut pages = vec![root().join("docs/CLUSTER.md")];
    files(&root().join("ops/runbooks"), &mut pages);
    let mut seen = 0;
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        // Only what stands as code by itself: other programs' options stand behind their names.
        for option in text.split("`--").skip(1).filter_map(|it| it.split(['`', ' ', '=']).next()) {
            let variable = format!("TILLSTREAM_{}", option.to_uppercase().replace('-', "_"));
            assert!(options.contains(&format!("env = \"{variable}\"")), "{}: --{option}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} options were found");
}
