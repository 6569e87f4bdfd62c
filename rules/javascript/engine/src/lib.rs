//! QuickJS-NG as a component: a rule's source becomes code by `compile`, once; code goes in by `load`, then a hook is asked.
//!
//! A question goes to the rule as an object; its answer comes back as one, by way of JSON. `tillstream.d.ts` of a project that
//! `tillstream rules new --lang javascript` makes says what they look like; [`question`] and [`answer`] are that in Rust.
#![cfg(target_arch = "wasm32")]

mod answer;
mod memory;
mod question;
mod quickjs;

#[allow(missing_docs, clippy::all, reason = "generated from the world, which documents every field")]
mod bindings {
    wit_bindgen::generate!({ path: ["../../wit", "wit"], world: "tillstream:javascript/engine", generate_all });
}

use bindings::exports::tillstream::rules as hooks;
use bindings::tillstream::javascript::host;
use serde::de::DeserializeOwned;

/// The hooks, by the names under which a rule exports them.
const HOOKS: [&str; 5] = ["price", "allocate", "risk", "ship", "measure"];

struct Engine;

impl bindings::Guest for Engine {
    fn compile(source: String) -> Result<Vec<u8>, String> {
        quickjs::compile(source)
    }

    fn load(code: Vec<u8>) -> Result<(), String> {
        quickjs::load(&code)
    }

    fn hooks() -> Vec<String> {
        HOOKS.into_iter().filter(|it| quickjs::exports(it)).map(str::to_owned).collect()
    }
}

/// Asks the rule. What it answers is read in the shape of the hook's answer; without one the call ends.
fn ask<A: DeserializeOwned>(hook: &str, question: quickjs::Value) -> A {
    let misfit = |text: &str| -> ! {
        host::misfit(text);
        core::arch::wasm32::unreachable()
    };
    match quickjs::ask(hook, question) {
        Err(thrown) => {
            host::threw(&thrown);
            core::arch::wasm32::unreachable()
        }
        Ok(it) if it == "undefined" => {
            misfit("it returned nothing that can be an answer; \"pass\" is to say nothing")
        }
        Ok(json) => match serde_json::from_str(&json) {
            Ok(answer) => answer,
            Err(error) => misfit(&error.to_string()),
        },
    }
}

impl hooks::price::Guest for Engine {
    fn decide(request: hooks::price::Request) -> hooks::price::Answer {
        ask::<answer::Price>("price", question::price(&request)).into()
    }
}

impl hooks::allocate::Guest for Engine {
    fn decide(request: hooks::allocate::Request) -> hooks::allocate::Answer {
        ask::<answer::Allocate>("allocate", question::allocate(&request)).into()
    }
}

impl hooks::risk::Guest for Engine {
    fn decide(request: hooks::risk::Request) -> hooks::risk::Answer {
        ask::<answer::Risk>("risk", question::risk(&request)).into()
    }
}

impl hooks::ship::Guest for Engine {
    fn decide(request: hooks::ship::Request) -> hooks::ship::Answer {
        ask::<answer::Ship>("ship", question::ship(&request)).into()
    }
}

impl hooks::measure::Guest for Engine {
    fn decide(request: hooks::measure::Request) -> Vec<hooks::measure::Attribute> {
        let pairs: answer::Measure = ask("measure", question::measure(&request));
        pairs.into_iter().map(|(name, value)| hooks::measure::Attribute { name, value }).collect()
    }
}

bindings::export!(Engine with_types_in bindings);
