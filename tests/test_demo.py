"""The drawn pairs."""

import hashlib

from utils.data.demo import draw_demo_pair


def test_the_demo_is_the_same_on_every_machine():
    digest = hashlib.sha256()
    for number in range(3):
        picture, mask = draw_demo_pair(f"demo_{number:03d}")
        assert picture.shape[:2] == mask.shape
        assert mask.any()
        digest.update(picture.tobytes() + mask.tobytes())
    assert digest.hexdigest() == "254c4c11852eb510ca2d1a0b5b94253e171679ad046b65f2c0650ae59facf720"
