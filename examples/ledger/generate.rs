//! A file of transfers with everything in it that can go wrong.

use std::io::{BufWriter, Write, stdout};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::failure::Failure;
use crate::plan::account_name;

/// Writes `lines` lines to the standard output, the same ones for the same seed.
pub(crate) fn generate(lines: usize, seed: u64, accounts: usize) -> Result<(), Failure> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut out = BufWriter::new(stdout().lock());
    writeln!(out, "id,from,to,amount")?;
    let mut id = 0_u64;
    for _ in 0..lines {
        let from = rng.random_range(0..accounts);
        let to = (from + rng.random_range(1..accounts)) % accounts;
        let (from, to) = (account_name(from), account_name(to));
        let amount = rng.random_range(1..=400_i64);
        let known = rng.random_range(1..=id.max(1));
        id += 1;
        match rng.random_range(0..1000) {
            0..20 => writeln!(out, "{known},{from},{to},{amount}")?,
            20..30 => writeln!(out, "{id},{from},A{},{amount}", accounts + 5)?,
            30..35 => writeln!(out, "{id},nobody,{to},{amount}")?,
            35..37 => writeln!(out, "{id},{from},{to}")?,
            37..39 => writeln!(out, "{id},{from},{to},{amount},twice")?,
            39..41 => writeln!(out, "{id},{from},{to},{amount}.50")?,
            41..43 => writeln!(out, "{id},{from},{to},much")?,
            43..45 => writeln!(out, "#{id},{from},{to},{amount}")?,
            45..47 => writeln!(out, "{id},{from},{to},0")?,
            47..49 => writeln!(out, "{id},{from},{to},-{amount}")?,
            49..51 => writeln!(out, "{id},{from},{from},{amount}")?,
            51..53 => writeln!(out, "{id},{from},{to},99999999999999999999")?,
            53..55 => writeln!(out, "{id},\"{from},{to},{amount},")?,
            55..57 => out.write_all(b"\xff\xfe,A1,A2,5\n")?,
            57..59 => writeln!(out, "{id},,,")?,
            59..62 => writeln!(out)?,
            62..92 => writeln!(out, "{id},{from},{to},{}", amount * 100)?,
            _ => writeln!(out, "{id},{from},{to},{amount}")?,
        }
    }
    out.flush()?;
    Ok(())
}
