//! Fixed byte layouts that can print themselves.
//!
//! A record in the pool and a frame on the wire are both plain structs of little-endian unsigned
//! integers. The [`described!`](crate::described) macro defines such a struct once, proves its size and that it has no
//! hidden padding, and keeps a table of its fields for `embarlet --print-layout` and the tests that
//! compare the written documentation with the code.

/// One field of a described struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in the code and in the documentation.
    pub name: &'static str,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Size in bytes.
    pub bytes: usize,
    /// Meaning and unit.
    pub doc: &'static str,
}

/// A struct whose byte layout is part of a published format.
pub trait Described: bytemuck::Pod {
    /// Name of the struct.
    const NAME: &'static str;
    /// Its fields in order of offset.
    const FIELDS: &'static [Field];
}

/// Prints a described struct as the rows of a Markdown table. `base` is added to every offset.
pub fn table<T: Described>(base: usize) -> String {
    let mut rows = String::from("| offset | bytes | field | meaning |\n|---|---|---|---|\n");
    for field in T::FIELDS {
        rows += &format!("| {} | {} | `{}` | {} |\n", base + field.offset, field.bytes, field.name, field.doc.trim());
    }
    rows
}

/// Defines a `repr(C)` plain-old-data struct of an exact size together with its table of fields.
#[doc(hidden)]
#[macro_export]
macro_rules! described {
    ($(#[$meta:meta])* pub struct $name:ident : $bytes:literal { $( $(#[doc = $doc:literal])+ $field:ident : $type:ty ),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $( $(#[doc = $doc])+ pub $field: $type ),* }
        const _: () = assert!(size_of::<$name>() == $bytes);
        impl $crate::fields::Described for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [$crate::fields::Field] = &[ $( $crate::fields::Field {
                name: stringify!($field),
                offset: std::mem::offset_of!($name, $field),
                bytes: size_of::<$type>(),
                doc: concat!($($doc),+),
            } ),* ];
        }
    };
}

const _: () = assert!(cfg!(target_endian = "little"), "the pool and the wire are little-endian");
