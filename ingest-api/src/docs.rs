//! `/docs`: one page about the calls of `/openapi.json` and the codes of problems. Nothing comes from outside, and nothing
//! runs or shows but what stands in the page: its policy names script and style by their hashes.

use crate::openapi::{Answer, Call};
use crate::problem::Code;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, header};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::LazyLock;

const TEMPLATE: &str = include_str!("../static/docs.html");

macro_rules! explanations {
    ($($code:literal)+) => {
        &[$(($code, include_str!(concat!("../../ops/errors/", $code, ".md")))),+]
    };
}

/// What the error pages say of the codes clients meet.
const EXPLANATIONS: &[(&str, &str)] = explanations! {
    "TS0601" "TS0602" "TS0603" "TS0604" "TS0605" "TS0606" "TS0607" "TS0608" "TS0609" "TS0610" "TS0611" "TS0612" "TS0613"
    "TS0614" "TS0615" "TS0616" "TS0617" "TS0618" "TS0619" "TS0620" "TS0621" "TS0622" "TS0623" "TS0640" "TS0641" "TS0642" "TS0660"
    "TS0661" "TS0662" "TS0663" "TS0664" "TS0665" "TS0667" "TS0668"
};

struct Page {
    html: Bytes,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let mut rows = String::new();
    for code in Code::ALL {
        let (name, status, title) = (code.as_str(), code.status().as_u16(), escaped(code.title()));
        let explained = explanation(name).map_or_else(String::new, paragraphs);
        let _ = write!(
            rows,
            "<tr id=\"{name}\"><td>{name}</td><td>{status}</td><td><b>{title}</b>{explained}</td></tr>"
        );
    }
    Page { html: TEMPLATE.replace("<!--codes-->", &rows).into(), policy: policy() }
});

fn policy() -> HeaderValue {
    let hash = |element: &str| {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let text = TEMPLATE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
        let digest = Sha256::digest(text.map_or("", |(text, _)| text));
        format!("'sha256-{}'", STANDARD.encode(digest))
    };
    let policy = format!(
        "default-src 'none'; connect-src 'self'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn explanation(code: &str) -> Option<&'static str> {
    EXPLANATIONS.iter().find(|(it, _)| *it == code).map(|(_, text)| *text)
}

/// What stands below the heading of an error page, as HTML.
fn paragraphs(page: &str) -> String {
    let mut html = String::new();
    for part in page.split("\n\n").skip(1).map(str::trim).filter(|it| !it.is_empty()) {
        let text = part.replace("**What happened.** ", "").replace("**What to do.** ", "");
        html.push_str("<p>");
        for (index, span) in text.split('`').enumerate() {
            let span = escaped(span);
            let _ = if index % 2 == 1 { write!(html, "<code>{span}</code>") } else { write!(html, "{span}") };
        }
        html.push_str("</p>");
    }
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The page.
pub(crate) async fn docs() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, PAGE.policy.clone()),
    ];
    (headers, PAGE.html.clone()).into_response()
}

/// `GET /docs`
pub(crate) fn docs_call() -> Call {
    Call::get("/docs", "getDocs", "operations", "A page about the calls and problems").answer(Answer::other(
        200,
        "HTML that loads nothing but `/openapi.json`",
        "text/html",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained() {
        for code in Code::ALL {
            let text =
                explanation(code.as_str()).unwrap_or_else(|| panic!("{} lacks its page here", code.as_str()));
            assert!(paragraphs(text).contains("<p>"), "{}", code.as_str());
        }
    }

    #[test]
    fn the_policy_names_script_and_style_and_nothing_is_inline_beside_them() {
        let policy = PAGE.policy.to_str().unwrap();
        assert_eq!(policy.matches("'sha256-").count(), 2);
        assert!(!policy.contains("unsafe"));
        assert_eq!((TEMPLATE.matches("<script").count(), TEMPLATE.matches("<style").count()), (1, 1));
        for inline in [" style=\"", " onclick=", " onload=", "javascript:", "http://", "https://"] {
            assert!(!TEMPLATE.contains(inline), "{inline}");
        }
    }

    #[test]
    fn text_of_error_pages_cannot_become_markup() {
        assert_eq!(paragraphs("# h\n\n**What to do.** `<a>` & b"), "<p><code>&lt;a&gt;</code> &amp; b</p>");
    }
}
