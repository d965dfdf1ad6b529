"""People who appear in problems: the same person has one name in each language.

Korean names end in a vowel so that one form of each particle fits them all.
"""

PEOPLE = {
    "en": ("Mina", "Leo", "Ana", "Tom", "Eva", "Max", "Sam", "Lea"),
    "ko": ("미나", "지호", "하나", "도하", "유리", "수지", "지우", "하루"),
    "zh": ("小明", "小红", "小李", "小王", "小林", "小美", "小张", "小周"),
}
