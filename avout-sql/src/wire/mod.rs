//! The driver: connections, the file that they are to, and what its errors mean.

pub(crate) mod connection;
pub(crate) mod error;
#[cfg(test)]
pub(crate) mod faults;
pub(crate) mod file;
pub(crate) mod log;
pub(crate) mod readers;
