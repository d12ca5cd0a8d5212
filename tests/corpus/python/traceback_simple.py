def parse(text):
    return int(text)


class Config:
    def load(self, values):
        return {key: parse(value) for key, value in values.items()}


def main():
    Config().load({"a": "1", "b": "x1"})


if __name__ == "__main__":
    main()
