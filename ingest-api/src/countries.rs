//! ISO 3166-1 alpha-2, officially assigned codes (source: ISO 3166 online browsing platform).

const CODES: &str = "ADAEAFAGAIALAMAOAQARASATAUAWAXAZBABBBDBEBFBGBHBIBJBLBMBNBOBQBRBSBTBVBWBYBZCACCCDCFCGCHCICKCL\
    CMCNCOCRCUCVCWCXCYCZDEDJDKDMDODZECEEEGEHERESETFIFJFKFMFOFRGAGBGDGEGFGGGHGIGLGMGNGPGQGRGSGTGUGWGYHKHMHNHRHTHUID\
    IEILIMINIOIQIRISITJEJMJOJPKEKGKHKIKMKNKPKRKWKYKZLALBLCLILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMRMSMTMUMVMW\
    MXMYMZNANCNENFNGNINLNONPNRNUNZOMPAPEPFPGPHPKPLPMPNPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISJSKSLSMSNSOSRSSSTSVSX\
    SYSZTCTDTFTGTHTJTKTLTMTNTOTRTTTVTWTZUAUGUMUSUYUZVAVCVEVGVIVNVUWFWSYEYTZAZMZW";

const fn bitmap() -> [u32; 26] {
    let codes = CODES.as_bytes();
    let mut map = [0; 26];
    let mut index = 0;
    while index + 1 < codes.len() {
        map[(codes[index] - b'A') as usize] |= 1 << (codes[index + 1] - b'A');
        index += 2;
    }
    map
}

const MAP: [u32; 26] = bitmap();

/// Whether it is an assigned code, in capitals.
pub(crate) fn is_country(code: &str) -> bool {
    match code.as_bytes() {
        [first @ b'A'..=b'Z', second @ b'A'..=b'Z'] => {
            MAP[usize::from(first - b'A')] >> (second - b'A') & 1 == 1
        }
        _ => false,
    }
}

/// Every assigned code, in order.
pub(crate) fn codes() -> impl Iterator<Item = &'static str> {
    (0..CODES.len()).step_by(2).filter_map(|at| CODES.get(at..at + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_249_assigned_codes_are_countries() {
        assert_eq!(CODES.len(), 2 * 249);
        assert_eq!(MAP.iter().map(|it| it.count_ones()).sum::<u32>(), 249);
        assert!(codes().count() == 249 && codes().all(is_country));
        for code in ["GB", "DE", "US", "ZW", "AD"] {
            assert!(is_country(code), "{code}");
        }
        for code in ["UK", "EU", "XX", "gb", "G", "GBR", "", "ÄÖ"] {
            assert!(!is_country(code), "{code}");
        }
    }
}
