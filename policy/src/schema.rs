//! OpenAPI schemas of the types that are written as one piece of text.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

macro_rules! text {
    ($($type:ty, $name:literal, $description:literal, $example:literal;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String).description(Some($description));
                text.examples([$example]).into()
            }
        }
        impl ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
        }
    )*};
}

text! {
    crate::Name, "Name", "1 to 63 of a-z, 0-9, '-', '_', '.', a letter or digit at both ends", "payments";
    crate::Host, "Host", "A host name or an IP address", "api.example.com";
    crate::HostPattern, "HostPattern", "A host, or *.suffix for every name below one", "*.example.com";
    crate::duration::Span, "Duration", "A whole number and one of ms, s, m, h, d", "250ms";
    crate::selector::TextPattern, "TextPattern", "Exact text, prefix*, *suffix, or * for any", "checkout-*";
    crate::selector::MethodName, "Method", "A request method, in capitals", "POST";
    crate::selector::PathPattern, "PathPattern", "An exact path, or a prefix ending in *", "/v1/*";
    crate::service::Trust, "Trust", "`system`, or the name of a credential of kind trust", "system";
    crate::rule::TimeOfDay, "TimeOfDay", "HH:MM, UTC", "08:00";
    crate::plugin::Digest, "Digest", "SHA-256, 64 lower-case hexadecimal digits", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
}
