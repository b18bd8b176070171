//! Random numbers that are the same everywhere and for ever: SplitMix64 (Steele, Lea and Flood 2014).

/// A generator; its state is its seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut this = Self(seed ^ stream.wrapping_mul(0x9e6c_63d0_876a_6a93));
        let first = this.bits();
        Self(first)
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (-53_f64).exp2()
    }

    /// Uniform below `end`, with an error far below what a simulation can see.
    #[inline]
    pub fn below(&mut self, end: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(end)) >> 32) as u32
    }

    /// The time to the next event of a Poisson process of this rate.
    #[inline]
    pub fn wait(&mut self, rate: f64) -> f64 {
        -(1.0 - self.unit()).ln() / rate
    }

    /// A Poisson number.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        let mut count = 0;
        let mut left = mean;
        while left > 0.0 {
            left -= self.wait(1.0);
            count += u64::from(left > 0.0);
        }
        count
    }

    /// How many of `n` trials succeed.
    pub fn binomial(&mut self, n: u64, p: f64) -> u64 {
        (0..n).filter(|_| self.unit() < p).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        // Of the reference implementation, from state 1234567.
        let mut random = Random(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn means_are_what_they_should_be() {
        let mut random = Random::new(1, 1);
        let n = 100_000_u32;
        let mean = |f: &mut dyn FnMut(&mut Random) -> f64| {
            let mut random = random.clone();
            (0..n).map(|_| f(&mut random)).sum::<f64>() / f64::from(n)
        };
        assert!((mean(&mut Random::unit) - 0.5).abs() < 0.005);
        assert!((mean(&mut |r| f64::from(r.below(10))) - 4.5).abs() < 0.05);
        assert!((mean(&mut |r| r.wait(4.0)) - 0.25).abs() < 0.005);
        assert!((mean(&mut |r| r.poisson(3.0) as f64) - 3.0).abs() < 0.03);
        assert_eq!(random.binomial(10, 1.0), 10);
    }
}
