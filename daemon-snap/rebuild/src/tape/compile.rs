//! State of one process → its tape.
//!
//! How long a tape is nobody has to know beforehand: it is assembled once to measure it and once
//! more for the place that it is mapped at.

use super::area::{Area, Region, Room};
use super::assembly::{Assembly, Framed, Words};
use super::env::TapeEnv;
use super::inherited::Kept;
use super::memory::MemoryPlan;
use super::op::Op;
use super::reseed::Placed;
use super::sequence::Sequence;
use super::{finish, late, memory, thread, x86_64};
use snap_error::{Error, Result};
use snap_state::{PAGE_BYTES, ProcessV1, ThreadV1};
use snap_sys::frame;
use std::ops::Range;

/// A tape ready to run.
#[derive(Debug)]
pub struct Compiled {
    /// Address of the interpreter.
    pub code: u64,
    /// Address of the leader's [`Context`].
    pub context: u64,
}

impl Compiled {
    /// Runs it in this process. Does not return: the process becomes the recorded one or ends.
    pub fn run(&self) -> ! {
        x86_64::run(self.code, self.context)
    }
}

/// How often the place is chosen anew. The tape's length depends on its place by the few calls that
/// unmap around it, so the second measure is right.
const ATTEMPTS: usize = 4;

/// Compiles the rest of a restore. The caller has placed descriptors, forked children, set signal
/// handlers.
///
/// # Errors
/// Something in the state cannot be expressed here (`Stale`, `Corrupt`), or no memory.
pub fn compile(process: &ProcessV1, env: &TapeEnv<'_>) -> Result<Compiled> {
    let mut taken: Vec<Range<u64>> = process.mm.vmas.iter().map(|v| v.start.0..v.end.0).collect();
    taken.extend(env.now.mapped.iter().cloned());
    let memory = MemoryPlan {
        kept: Kept::new(&process.mm.vmas, &process.mm.runs, env.now.inherited),
        reseed: env.reseed.map(|plan| Placed::find(plan, &mut taken)).transpose()?,
    };
    let mut room = assemble(process, env, &memory, Area::measuring())?.area.used();
    for _ in 0..ATTEMPTS {
        let assembled = assemble(process, env, &memory, Area::placed(&mut taken, room)?)?;
        let used = assembled.area.used();
        if room.holds(used) {
            assembled.area.map()?;
            return Ok(Compiled { code: assembled.area.code(), context: assembled.context });
        }
        room = Room::larger(room, used);
    }
    Err(Error::Internal { step: "compiling the tape", message: "its length depends on its place".into() })
}

/// A whole tape for one place.
struct Assembled {
    area: Area,
    /// Address of the leader's context.
    context: u64,
}

fn assemble(
    process: &ProcessV1,
    env: &TapeEnv<'_>,
    plan: &MemoryPlan<'_>,
    mut area: Area,
) -> Result<Assembled> {
    let words = Words::place(&mut area)?;
    let mut asm = Assembly { env, process, area, words };
    let frames = put_frames(&mut asm.area, &process.threads)?;
    let ends = finish::place_ends(&mut asm)?;

    let mut leader = Sequence::default();
    for framed in frames.iter().skip(1) {
        thread::create(&mut asm, *framed, &ends, &mut leader)?;
    }
    finish::create_helper(&mut asm, &ends, &mut leader)?;
    leader.append(late::ops(&mut asm)?);

    let vdso_len: u64 = env.now.vdso_parts.iter().map(|p| p.end - p.start).sum();
    let parking = asm.area.reserve(Region::Drop, vdso_len, PAGE_BYTES)?;
    leader.append(memory::unmap_ops(&asm, &plan.kept, parking)?);
    leader.append(memory::map_ops(&mut asm, plan)?);
    leader.push(memory::layout_op(&mut asm)?);
    finish::close_unneeded(env, &mut leader);
    let after = leader.len() + 1;
    leader.push_jumping(Op::post(asm.words.mapped, 0), Some(after), None);

    let first = frames[0];
    leader.append(thread::own_state(&mut asm, first.thread)?);
    leader.append(finish::process_ops(&mut asm)?);
    leader.append(thread::give_up_privilege(&mut asm, first.thread)?);
    leader.append(finish::last_ops(&mut asm, &ends)?);
    let tape = leader.place(&mut asm.area, Region::Drop)?;
    let context = asm.put_context(tape, first.frame)?;
    Ok(Assembled { area: asm.area, context })
}

fn put_frames<'a>(area: &mut Area, threads: &'a [ThreadV1]) -> Result<Vec<Framed<'a>>> {
    let put = |thread| {
        let at = area.next(Region::Keep, frame::ALIGN_BYTES);
        let frame = area.put(Region::Keep, &frame::build(thread, at)?, frame::ALIGN_BYTES)?;
        Ok(Framed { thread, frame })
    };
    threads.iter().map(put).collect()
}
