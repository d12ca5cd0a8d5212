import logging
import logging.config

logging.warning("last resort, root")
logging.getLogger("lib").error("from lib %s", {"a": 1})
logging.getLogger("quiet").info("hidden")
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s:%(name)s:%(filename)s:%(lineno)d:%(funcName)s:%(processName)s:%(threadName)s:%(message)s", force=True)
try:
    {}["k"]
except KeyError:
    logging.exception("with traceback")
logging.info("bad format %d", "x")
logging.getLogger(__name__).critical("from %s", __name__)
