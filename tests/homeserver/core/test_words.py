"""The words of texts."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from homeserver.core.words import MAX_QUERY_WORDS, MAX_WORD, query, words


class WordsTest(TestCase):
    def test_words_are_folded(self) -> None:
        """Shows MISC-3."""
        self.assertEqual(words("Café, STRASSE Straße ﬁn"), ["cafe", "strasse", "strasse", "fin"])

    def test_scripts_without_spaces_give_characters_and_pairs(self) -> None:
        """Shows MISC-3."""
        self.assertEqual(words("我喜欢"), ["我", "喜", "欢", "我喜", "喜欢"])
        self.assertEqual(words("abc東京"), ["abc", "東", "京", "東京"])
        self.assertIn("안녕", words("안녕하세요"))
        self.assertIn("สวัส"[:2], words("สวัสดี"))

    def test_composed_and_decomposed_are_the_same(self) -> None:
        self.assertEqual(words("e\u0301te\u0301"), words("été"))
        self.assertEqual(words("\u1112\u1161\u11ab"), words("한"))

    def test_symbols_are_words(self) -> None:
        self.assertEqual(words("hi🎉🎈!"), ["hi", "🎉", "🎈"])

    def test_marks_stay_in_their_words(self) -> None:
        self.assertEqual(words("हिन्दी भाषा"), ["हिन्दी", "भाषा"])

    def test_plain_text_is_no_special_case(self) -> None:
        text = "".join(map(chr, range(128))) + " Don't stop_me `now` a^b"
        self.assertEqual(words(text), words(text + "\u2026"))

    def test_a_very_long_word_is_cut(self) -> None:
        self.assertEqual(words("a" * 1000), ["a" * MAX_WORD])


class QueryTest(TestCase):
    def test_short_words_and_numbers_are_looked_for_whole(self) -> None:
        found = query("go room 42 abc1")
        self.assertEqual((found.words, found.prefixes), (("go", "42", "abc1"), ("room",)))

    def test_all_of_it_must_be_in_a_text(self) -> None:
        """Shows MISC-3."""
        wanted = query("message 4")
        self.assertTrue(wanted.in_text("Messages: 4!"))
        self.assertFalse(wanted.in_text("message 40"))
        self.assertFalse(wanted.in_text("4"))

    def test_characters_must_stand_as_they_are_typed(self) -> None:
        """Shows MISC-3."""
        wanted = query("東京都")
        self.assertTrue(wanted.in_text("ここは東京都です"))
        self.assertFalse(wanted.in_text("東京と京都"))

    def test_nothing_but_punctuation_looks_for_nothing(self) -> None:
        self.assertFalse(query('"* () .^$ -'))

    def test_a_long_query_is_bounded(self) -> None:
        found = query(" ".join(f"word{i} {chr(0x4E00 + i)}" for i in range(5000)))
        self.assertLessEqual(len(found.words) + len(found.prefixes), MAX_QUERY_WORDS + 1)
        self.assertLessEqual(len(query("漢字" * 5000).words), MAX_QUERY_WORDS)
