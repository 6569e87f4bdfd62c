//! What a call says about itself.

use crate::params::Query;
use crate::problem::Code;
use crate::shape::{Field, Kind};
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

/// The contract of one call, but for what its route knows (whether it needs a key).
pub(crate) struct Call {
    pub method: Method,
    pub path: &'static str,
    /// The name generated clients give it.
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    /// More than the summary says, if there is more; CommonMark.
    pub about: &'static str,
    pub segments: Vec<Segment>,
    pub query: &'static [Query],
    /// It must have an Idempotency-Key.
    pub idempotent: bool,
    /// It heeds `Prefer: wait`.
    pub waits: bool,
    pub body: Option<Body>,
    pub answers: Vec<Answer>,
    pub problems: Vec<Code>,
}

/// A parameter in the path.
pub(crate) struct Segment {
    pub name: &'static str,
    pub about: &'static str,
    pub kind: SegmentKind,
    pub example: &'static str,
}

/// What a path parameter must be.
pub(crate) enum SegmentKind {
    /// A value of a body's kind.
    Of(Kind),
    /// An id with this prefix.
    Id(&'static str),
    /// A whole number from zero on.
    Number,
}

/// A body that is sent.
pub(crate) struct Body {
    pub name: &'static str,
    pub media_type: &'static str,
    /// Others that are taken as well.
    pub other_types: &'static [&'static str],
    pub about: &'static str,
    pub fields: &'static [Field],
    pub example: Value,
}

impl Body {
    /// Whether it is JSON, and not bytes.
    pub(crate) fn is_json(&self) -> bool {
        !self.fields.is_empty()
    }
}

/// An answer that is no problem.
pub(crate) struct Answer {
    pub status: u16,
    pub about: &'static str,
    pub media_type: &'static str,
    pub schema: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub example: Option<Value>,
    pub headers: Vec<(&'static str, &'static str)>,
    pub links: Vec<Link>,
}

/// Which call goes on from an answer.
pub(crate) struct Link {
    /// The operation id of that call.
    pub to: &'static str,
    /// Its parameters, as runtime expressions.
    pub parameters: &'static [(&'static str, &'static str)],
}

impl Call {
    fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        tag: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            id,
            tag,
            summary,
            about: "",
            segments: Vec::new(),
            query: &[],
            idempotent: false,
            waits: false,
            body: None,
            answers: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// A GET.
    pub(crate) fn get(
        path: &'static str,
        id: &'static str,
        tag: &'static str,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::GET, path, id, tag, summary)
    }

    /// A POST.
    pub(crate) fn post(
        path: &'static str,
        id: &'static str,
        tag: &'static str,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::POST, path, id, tag, summary)
    }

    /// A PUT.
    pub(crate) fn put(
        path: &'static str,
        id: &'static str,
        tag: &'static str,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::PUT, path, id, tag, summary)
    }

    /// A PATCH.
    pub(crate) fn patch(
        path: &'static str,
        id: &'static str,
        tag: &'static str,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::PATCH, path, id, tag, summary)
    }

    /// A DELETE.
    pub(crate) fn delete(
        path: &'static str,
        id: &'static str,
        tag: &'static str,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::DELETE, path, id, tag, summary)
    }

    /// Says more than the summary does; CommonMark.
    pub(crate) fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// A parameter in the path that is a value of a kind.
    pub(crate) fn segment(
        self,
        name: &'static str,
        kind: Kind,
        about: &'static str,
        example: &'static str,
    ) -> Self {
        self.with_segment(Segment { name, about, kind: SegmentKind::Of(kind), example })
    }

    /// A parameter in the path that is an id with a prefix.
    pub(crate) fn id_segment(
        self,
        name: &'static str,
        prefix: &'static str,
        about: &'static str,
        example: &'static str,
    ) -> Self {
        self.with_segment(Segment { name, about, kind: SegmentKind::Id(prefix), example })
    }

    /// A parameter in the path that is a whole number.
    pub(crate) fn number_segment(self, name: &'static str, about: &'static str) -> Self {
        self.with_segment(Segment { name, about, kind: SegmentKind::Number, example: "0" })
    }

    fn with_segment(mut self, segment: Segment) -> Self {
        self.segments.push(segment);
        self
    }

    /// The table its query is read by.
    pub(crate) fn query(self, query: &'static [Query]) -> Self {
        Self { query, ..self }
    }

    /// It must have an Idempotency-Key.
    pub(crate) fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    /// It heeds `Prefer: wait`.
    pub(crate) fn waits(self) -> Self {
        Self { waits: true, ..self }
    }

    /// The table its JSON body is read by, and a body that can be taken.
    pub(crate) fn body(self, name: &'static str, fields: &'static [Field], example: Value) -> Self {
        let (media_type, other_types) = ("application/json", &[]);
        let body = Body { name, media_type, other_types, about: "", fields, example };
        Self { body: Some(body), ..self }
    }

    /// A body whose every line is a JSON object.
    pub(crate) fn lines(
        self,
        name: &'static str,
        media_type: &'static str,
        fields: &'static [Field],
        example: Value,
    ) -> Self {
        let about = "One JSON object per line; the schema is that of a line.";
        let body = Body { name, media_type, other_types: &[], about, fields, example };
        Self { body: Some(body), ..self }
    }

    /// A body that is no JSON.
    pub(crate) fn bytes(
        self,
        name: &'static str,
        (media_type, other_types): (&'static str, &'static [&'static str]),
        about: &'static str,
    ) -> Self {
        let body = Body { name, media_type, other_types, about, fields: &[], example: Value::Null };
        Self { body: Some(body), ..self }
    }

    /// One more answer.
    pub(crate) fn answer(mut self, answer: Answer) -> Self {
        self.answers.push(answer);
        self
    }

    /// One more problem, besides those that follow from what the call takes.
    pub(crate) fn problem(mut self, code: Code) -> Self {
        self.problems.push(code);
        self
    }

    /// It reads the store.
    pub(crate) fn reads(self) -> Self {
        self.problem(Code::Stopped).problem(Code::Internal)
    }

    /// It writes to the log.
    pub(crate) fn writes(self) -> Self {
        self.problem(Code::NotReady).problem(Code::Overloaded).problem(Code::DiskFull).reads()
    }

    /// It changes what tenants configured: the change is in the log, and in force, before it answers.
    pub(crate) fn changes(self) -> Self {
        self.problem(Code::NotInForceYet).problem(Code::DiskFull).reads()
    }

    /// Every problem of the call, each once, in the order of their codes.
    pub(crate) fn all_problems(&self, keyed: bool) -> Vec<Code> {
        let mut codes = self.problems.clone();
        if keyed {
            codes.extend([Code::Unauthorized, Code::TooManyRequests, Code::Forbidden, Code::RateLimited]);
        }
        if !self.query.is_empty() || !self.segments.is_empty() {
            codes.push(Code::InvalidParameters);
        }
        if self.idempotent {
            codes.extend([Code::IdempotencyKey, Code::IdempotencyConflict]);
        }
        if let Some(body) = &self.body {
            codes.extend([Code::BodyTooLarge, Code::UnsupportedMediaType]);
            // What is wrong with a line is told in its result line.
            if body.media_type == "application/json" {
                codes.extend([
                    Code::MalformedJson,
                    Code::InvalidFields,
                    Code::BodyIncomplete,
                    Code::BodyTooSlow,
                ]);
                codes.push(Code::BadCompression);
            }
        }
        codes.sort_by_key(|it| it.as_str());
        codes.dedup();
        codes
    }
}

impl Answer {
    /// A JSON body of a type.
    pub(crate) fn json<T: JsonSchema>(status: u16, about: &'static str) -> Self {
        let schema: fn(&mut SchemaGenerator) -> Schema = |generator| generator.subschema_for::<T>();
        Self { schema: Some(schema), ..Self::other(status, about, "application/json") }
    }

    /// Lines that are JSON bodies of a type.
    pub(crate) fn lines<T: JsonSchema>(status: u16, about: &'static str, media_type: &'static str) -> Self {
        Self { media_type, ..Self::json::<T>(status, about) }
    }

    /// A body of another media type.
    pub(crate) fn other(status: u16, about: &'static str, media_type: &'static str) -> Self {
        Self {
            status,
            about,
            media_type,
            schema: None,
            example: None,
            headers: Vec::new(),
            links: Vec::new(),
        }
    }

    /// No body.
    pub(crate) fn empty(status: u16, about: &'static str) -> Self {
        Self::other(status, about, "")
    }

    /// A body as it may be.
    pub(crate) fn example(self, example: Value) -> Self {
        Self { example: Some(example), ..self }
    }

    /// One more header, and what it says.
    pub(crate) fn header(mut self, name: &'static str, about: &'static str) -> Self {
        self.headers.push((name, about));
        self
    }

    /// The call that goes on from here, with its parameters as runtime expressions.
    pub(crate) fn link(
        mut self,
        to: &'static str,
        parameters: &'static [(&'static str, &'static str)],
    ) -> Self {
        self.links.push(Link { to, parameters });
        self
    }
}
