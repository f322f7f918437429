//! CRC-64 (the one of xz): it finds every change of up to 64 bits in a row, and misses one in 2^64 others.

const TABLE: [u64; 256] = table();

const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xc96c_5795_d787_0f42 } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

/// The checksum of `bytes`.
pub fn crc64(bytes: &[u8]) -> u64 {
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_one_of_xz() {
        assert_eq!(super::crc64(b"123456789"), 0x995d_c9bb_df19_39fa);
        assert_eq!(super::crc64(b""), 0);
    }
}
