//! Tests of the engine through the command line of `fastboot`, with subjects that judge themselves.
//!
//! See `../README.md` for the protocol and for how to add a subject.

mod areas;
mod boundary;
mod cases;
mod compile;
mod control_group;
mod draws;
mod dump_failures;
mod equal;
mod fastboot;
mod growth;
mod large_images;
mod left_out;
mod process;
mod refusals;
mod restore_failures;
mod running;
mod view;

fn main() -> std::process::ExitCode {
    let all = [
        view::tests,
        cases::tests,
        refusals::tests,
        left_out::tests,
        control_group::tests,
        draws::tests,
        dump_failures::tests,
        restore_failures::tests,
        large_images::tests,
        growth::tests,
        boundary::tests,
    ];
    test_frame::libtest::main(all.into_iter().flat_map(|tests| tests()).collect())
}
