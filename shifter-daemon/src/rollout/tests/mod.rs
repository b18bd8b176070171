mod simulation;
mod world;
