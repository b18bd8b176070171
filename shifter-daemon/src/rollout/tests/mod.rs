mod admission;
mod plans;
mod refusals;
mod simulation;
mod transcripts;
mod transitions;
mod world;
