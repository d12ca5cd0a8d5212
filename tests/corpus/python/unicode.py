# The source is not ASCII: żółw 🐢
зміна = "значення"
ﬁne = 1  # NFKC: the name is "fine"
print(зміна, fine, "\N{SNOWMAN} 漢字 🐢 e\u0301", "naïve".encode())
print(ascii("漢字"), len("🐢"), "ß".upper(), "İ".lower())
print("lone \udc80 surrogate")
print("line\x0bsep\x1c\u2028end".splitlines())
import sys
print("ошибка 🐢 \udcff", file=sys.stderr)
raise ValueError("зламано 🐢 \udcff")
