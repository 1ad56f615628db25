"""A worker that says whether TensorFlow sees a GPU here."""

from benchmarks.workers import answer, arguments, turns


def main() -> None:
    arguments()
    import tensorflow as tf

    for _ in turns():
        answer(bool(tf.config.list_physical_devices("GPU")))


if __name__ == "__main__":
    main()
