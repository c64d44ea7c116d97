"""Prints the golden draws of tests/kernels/sampling_draw_test.cc.

Philox4x32-10 written from its paper (Salmon et al. 2011), checked here against the three known
answers that its authors publish with Random123 before anything is printed.
"""

MASK = 0xFFFFFFFF


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & MASK, (a >> 32) ^ c[3] ^ k[1], a & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]

DRAWS = [
    (0, 0, 0),
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (1 << 32, 0, 0),
    (0x299F31D0A4093822, 3, 4095),
    ((1 << 64) - 1, MASK, MASK),
]

if __name__ == "__main__":
    for counter, key, want in KNOWN:
        assert philox(counter, key) == want, (counter, key)
    for seed, index, position in DRAWS:
        word = philox([index, position, 0, 0], [seed & MASK, seed >> 32])[0]
        print(f"{{0x{seed:x}u, {index}u, {position}u, 0x{word >> 8:06x}}},")
