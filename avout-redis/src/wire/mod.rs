//! How requests reach the server: finding it, connections, the era of the namespace that each is in, and what replicas confirm.

mod client;
pub(crate) mod connection;
mod enter;
mod error;
mod list;
mod lookout;
mod replicas;
mod requests;
mod scripts;
mod servers;
mod verdict;
mod way;

pub(crate) use client::Client;
pub(crate) use error::{OLD, classify, closed, foreign, is_answer, lost_namespace};
pub(crate) use lookout::look_out;
pub(crate) use replicas::confirm_rounds;
pub(crate) use requests::{Head, milliseconds};
pub(crate) use scripts::{Loaded, Script};
pub(crate) use servers::Finder;
pub(crate) use verdict::Verdict;
