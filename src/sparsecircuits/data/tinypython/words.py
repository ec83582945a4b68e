"""The vocabulary of generated files: identifiers and the words of their strings."""


def _list(text: str) -> list[str]:
    return text.split()


NOUNS = _list(
    "name value item size count index result total line text data key path file node user user_id "
    "order price score level point width height weight length color shape label title message word "
    "letter number record row column table cell page book author reader writer student teacher course "
    "grade class_name room door window house street city country map route road car wheel engine "
    "train ticket seat flight plane pilot ship port box bag shelf store shop product stock sale cart "
    "customer client address email phone account balance amount bank card coin payment invoice bill "
    "tax rate discount salary worker job task step stage state status mode option choice answer "
    "question test query request response token session cookie header body footer field form button "
    "menu panel screen image pixel frame video sound song album artist player team game match round "
    "turn move board piece card_id deck hand rule goal event action signal error warning failure "
    "success code branch commit version release patch module package plugin script function method "
    "param arg config setting default limit offset start end first last left right top bottom front "
    "back parent child root leaf tree graph edge path_len queue stack heap buffer cache memory disk "
    "block chunk segment part slot bucket group batch sample model layer unit input output source "
    "target origin point_id distance speed time date day week month year hour minute second clock "
    "timer delay interval period season weather rain snow wind storm cloud sun moon star planet river "
    "lake sea ocean island forest field_id mountain valley stone rock sand garden flower apple orange "
    "banana lemon bread milk cheese egg soup rice salad pizza cake sugar salt pepper recipe dog cat "
    "bird fish horse cow sheep pig duck mouse rabbit bear wolf fox lion tiger monkey elephant snake "
    "shirt shoe hat coat pocket chair lamp bed desk clock_id mirror key_id lock bottle cup plate "
    "spoon fork knife person friend family member guest owner manager leader driver doctor nurse "
    "patient farmer baker hero enemy weapon armor shield sword arrow potion spell monster dragon "
    "castle tower bridge gate wall tile zone region area border corner side angle radius circle "
    "square line_no vector matrix grid vertex entry child_id pair left_side right_side symbol char "
    "digit prefix suffix pattern tag category kind type_name topic comment note draft report summary "
    "detail digest link url host server socket channel stream packet proxy worker_id thread process "
    "command shell folder directory archive backup snapshot log trace metric counter depth rank "
    "priority capacity volume mass energy power force pressure temperature sensor motor battery"
)
PLURALS = _list(
    "names values items numbers results lines words letters keys paths files nodes users orders "
    "prices scores levels points colors shapes labels titles messages records rows columns tables "
    "cells pages books students courses grades rooms houses cities countries routes cars tickets "
    "seats flights ships boxes products sales customers clients accounts coins payments invoices "
    "bills rates workers jobs tasks steps stages states options choices answers questions tests "
    "queries requests tokens sessions headers fields buttons images frames songs players teams games "
    "rounds moves pieces cards rules goals events actions errors warnings codes branches versions "
    "modules packages scripts params args children edges blocks chunks parts groups batches samples "
    "layers units inputs outputs sources targets distances times dates days weeks months years "
    "planets rivers flowers apples recipes dogs cats birds animals people friends members guests "
    "entries pairs symbols digits tags kinds topics comments notes reports links hosts servers "
    "packets commands folders logs metrics ranks sensors data xs ys elements queue stack grid matrix "
    "table history weights sizes counts totals offsets matches fruits tools"
)
VERBS = _list(
    "get set make build load save read write open close run start stop find search check test parse "
    "format print show draw update remove add append insert delete clear reset copy move merge split "
    "join sort filter count sum compute calculate convert encode decode send receive fetch download "
    "upload create destroy handle process validate verify compare match replace render resize rotate "
    "scale shift swap select choose pick collect gather apply call execute visit walk scan list store "
    "restore import_from export log report notify register connect listen accept reject wait sleep "
    "wake play pause resume skip push pop peek enqueue drain fill pack unpack wrap clean trim "
    "normalize reverse shuffle sample guess solve plan schedule assign release borrow lend buy sell "
    "pay charge refund ship deliver cook bake mix serve feed plant grow paint climb jump attack "
    "defend heal greet ask"
)
ADJECTIVES = _list(
    "new old first last next previous current best worst final total main max min big small large "
    "short long high low fast slow hot cold red green blue black white dark bright clean dirty empty "
    "full open closed active ready valid invalid missing extra unknown public private local remote "
    "global simple raw safe lazy hidden visible left right upper lower inner outer early late good "
    "bad happy sad quiet loud young rich poor heavy light soft"
)
FLAGS = _list(
    "found ready active valid done flag x enabled visible running finished started empty changed "
    "verbose debug quiet open locked closed dirty stop success ok failed paused connected loaded "
    "saved dry_run force alive happy full is_valid is_ready is_open has_next has_error is_empty "
    "use_cache strict recursive visited sorted_rows updated"
)
LETTERS = _list("x y z a b c n m k i j p q s t u v w d e f g h r")
ACCUMULATORS = _list(
    "current result seen found out output text buffer words names parts items keys values line "
    "message found_items tags letters total codes letters_seen collected data report known users "
    "lines answer used visited chars acc summary unique labels body content done paths tokens left "
    "right first second other rest extra old new"
)
ONSETS = _list("b d f g h k l m n p r s t v z br dr gr pl st tr")  # with the two below: names that are no words
VOWELS = _list("a e i o u")
CODAS = ("", "", *_list("l m n r s x k nd"))
CONSTANTS = _list("LIMIT SIZE PATH NAME DEFAULT MAX MIN TIMEOUT ROOT WIDTH HEIGHT DEBUG COLORS LEVELS COUNT PORT HOST")
MODULES = _list(
    "os sys re json math random time csv string itertools functools collections datetime logging "
    "argparse copy shutil glob subprocess threading unittest hashlib uuid socket struct io abc enum "
    "typing textwrap tempfile"
)
FROM_IMPORTS = (
    ("collections", "defaultdict Counter deque namedtuple OrderedDict"),
    ("os", "path listdir environ"),
    ("pathlib", "Path"),
    ("typing", "List Dict Optional Any"),
    ("datetime", "datetime timedelta date"),
    ("math", "sqrt floor ceil pi"),
    ("random", "choice randint shuffle"),
    ("itertools", "chain count product"),
    ("functools", "partial reduce wraps"),
    ("dataclasses", "dataclass field"),
)
STRING_METHODS = _list("strip lower upper title lstrip rstrip capitalize split splitlines")
TEXT_CHECKS = _list("startswith endswith isdigit isalpha isupper islower")
EXCEPTIONS = _list("ValueError KeyError TypeError IndexError OSError RuntimeError FileNotFoundError Exception")
READ_NAMES = _list(
    "input_path source_file config_path input_file source infile in_path data_file template_path old_path"
)
WRITE_NAMES = _list("output_path target_file out_path output_file target outfile dest log_path report_path new_path")
FILE_NAMES = _list("path filename file_path fname name fp p file_name")
HANDLES = _list("f fh file handle fp stream out src reader data_file")
EXTENSIONS = _list("txt csv json log md py dat ini yml html")
TYPES = _list("int str float bool list dict")
OBJECTS = _list(
    "self logger parser app client db session window button screen player game server cursor conn "
    "queue api bot user config robot printer speaker menu view model cache store page form report "
    "driver engine shop market garden team"
)
OBJECT_VERBS = _list(
    "info debug warning error send write log add_argument get find say show print run execute open "
    "set_title connect append push notify emit publish post put load save ask tell draw call join "
    "remove select speak label play read"
)
