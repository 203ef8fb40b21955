//! Descriptor sets as they come from a protobuf compiler: the part of `google/protobuf/descriptor.proto` that a conversion needs,
//! and `google.api.http`. Only read here; what they mean is `schema`'s to say.

use prost::Message;

/// `FileDescriptorSet`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FileSet {
    #[prost(message, repeated, tag = "1")]
    pub(crate) files: Vec<File>,
}

/// `FileDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct File {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) package: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) messages: Vec<MessageType>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) enums: Vec<EnumType>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) services: Vec<Service>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) extensions: Vec<Field>,
    #[prost(message, optional, tag = "8")]
    pub(crate) options: Option<FileOptions>,
    #[prost(string, tag = "12")]
    pub(crate) syntax: String,
    #[prost(int32, tag = "14")]
    pub(crate) edition: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FileOptions {
    #[prost(message, optional, tag = "50")]
    pub(crate) features: Option<FeatureSet>,
}

/// `DescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MessageType {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) fields: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) nested: Vec<MessageType>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) enums: Vec<EnumType>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) extensions: Vec<Field>,
    #[prost(message, optional, tag = "7")]
    pub(crate) options: Option<MessageOptions>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) oneofs: Vec<Oneof>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MessageOptions {
    #[prost(bool, tag = "7")]
    pub(crate) map_entry: bool,
    #[prost(message, optional, tag = "12")]
    pub(crate) features: Option<FeatureSet>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Oneof {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// `FieldDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Field {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) extendee: String,
    #[prost(int32, tag = "3")]
    pub(crate) number: i32,
    #[prost(int32, tag = "4")]
    pub(crate) label: i32,
    #[prost(int32, tag = "5")]
    pub(crate) kind: i32,
    #[prost(string, tag = "6")]
    pub(crate) type_name: String,
    #[prost(message, optional, tag = "8")]
    pub(crate) options: Option<FieldOptions>,
    #[prost(int32, optional, tag = "9")]
    pub(crate) oneof_index: Option<i32>,
    #[prost(string, tag = "10")]
    pub(crate) json_name: String,
    #[prost(bool, tag = "17")]
    pub(crate) proto3_optional: bool,
}

/// `FieldDescriptorProto.LABEL_REPEATED`.
pub(crate) const REPEATED: i32 = 3;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FieldOptions {
    #[prost(bool, optional, tag = "2")]
    pub(crate) packed: Option<bool>,
    #[prost(message, optional, tag = "21")]
    pub(crate) features: Option<FeatureSet>,
}

/// `FeatureSet`, which says in editions what `syntax` says before them.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FeatureSet {
    /// 1 explicit, 2 implicit, 3 required.
    #[prost(int32, tag = "1")]
    pub(crate) field_presence: i32,
    /// 1 packed, 2 expanded.
    #[prost(int32, tag = "3")]
    pub(crate) repeated_field_encoding: i32,
    /// 1 with its length, 2 between tags.
    #[prost(int32, tag = "5")]
    pub(crate) message_encoding: i32,
}

/// `EnumDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EnumType {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) values: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EnumValue {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "2")]
    pub(crate) number: i32,
}

/// `ServiceDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Service {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) methods: Vec<Method>,
}

/// `MethodDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Method {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) input: String,
    #[prost(string, tag = "3")]
    pub(crate) output: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) options: Option<MethodOptions>,
    #[prost(bool, tag = "5")]
    pub(crate) client_streaming: bool,
    #[prost(bool, tag = "6")]
    pub(crate) server_streaming: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MethodOptions {
    /// The extension `google.api.http`.
    #[prost(message, optional, tag = "72295728")]
    pub(crate) http: Option<HttpRule>,
}

/// `google.api.HttpRule`. At most one of the patterns is set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpRule {
    #[prost(string, tag = "2")]
    pub(crate) get: String,
    #[prost(string, tag = "3")]
    pub(crate) put: String,
    #[prost(string, tag = "4")]
    pub(crate) post: String,
    #[prost(string, tag = "5")]
    pub(crate) delete: String,
    #[prost(string, tag = "6")]
    pub(crate) patch: String,
    #[prost(string, tag = "7")]
    pub(crate) body: String,
    #[prost(message, optional, tag = "8")]
    pub(crate) custom: Option<CustomPattern>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) additional_bindings: Vec<HttpRule>,
    #[prost(string, tag = "12")]
    pub(crate) response_body: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CustomPattern {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}
