//! Reading configuration text into the model, with every problem reported at its place. Pure.
