//! The two ways to the log, of a publisher and of a subscriber alike.

/// Over TCP, or attached.
pub(super) enum Path<T, A> {
    Tcp(Box<T>),
    Attached(A),
}

/// Does the same whichever way it is.
macro_rules! on_path {
    ($path:expr, $inner:ident => $what:expr) => {
        match $path {
            Path::Tcp($inner) => $what,
            Path::Attached($inner) => $what,
        }
    };
}
pub(super) use on_path;
