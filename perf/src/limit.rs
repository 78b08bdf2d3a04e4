//! As on a lesser processor: this process, the brokers it starts, and the C library's copies in all of them.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use embarcadero::processor::{self, Instructions};

use crate::error::CompareError;

/// Where glibc is told what the processor has not; it reads that once, before a program begins.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Uses no more than this from now on. If the C library must be told too, this process begins anew.
///
/// # Errors
/// [`CompareError::Io`] if it cannot.
pub fn processor(instructions: Instructions) -> Result<(), CompareError> {
    processor::limit(instructions);
    let Some(without) = hidden_from_glibc(instructions) else { return Ok(()) };
    let tunables = format!("glibc.cpu.hwcaps={without}");
    if env::var(TUNABLES).is_ok_and(|set| set == tunables) {
        return Ok(());
    }
    let program = env::current_exe().map_err(CompareError::io("finding this program's own path"))?;
    let failed = Command::new(program).args(env::args_os().skip(1)).env(TUNABLES, tunables).exec();
    Err(CompareError::io("beginning anew with less of the processor")(failed))
}

/// What its copies would be chosen by, as glibc's manual of tunables names it.
fn hidden_from_glibc(instructions: Instructions) -> Option<&'static str> {
    match instructions {
        Instructions::All => None,
        Instructions::Avx2 => Some("-AVX512F,-AVX512VL,-AVX512BW"),
        Instructions::Sse42 => Some("-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX_Fast_Unaligned_Load"),
    }
}
