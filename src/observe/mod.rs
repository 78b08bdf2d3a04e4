//! What can be seen from outside: counters that outlive the process, in the pool.

pub mod counters;
