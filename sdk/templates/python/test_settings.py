import unittest

from settings import Mistake, Settings


class Reading(unittest.TestCase):
    def test_a_header_is_enough(self):
        self.assertEqual(Settings.read(b'{"header": "x-team"}'), Settings("x-team", [], "x-checked-by"))

    def test_mistakes_are_refused_with_a_pointer(self):
        for text, pointer in [
            ("{}", "/header"),
            ('{"header": "two words"}', "/header"),
            ('{"header": "x-team", "stamp": 1}', "/stamp"),
            ('{"header": "x-team", "values": "blue"}', "/values"),
            ('{"header": "x-team", "colour": "blue"}', "/colour"),
        ]:
            with self.subTest(text), self.assertRaisesRegex(Mistake, f"^{pointer}: "):
                Settings.read(text)


if __name__ == "__main__":
    unittest.main()
