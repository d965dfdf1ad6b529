"""In which encoding a text file was written: by its mark or declaration, else by what its letters would then be.

Korean, Chinese and Taiwanese bytes are mostly valid in each other's encodings, so that an attempt to decode decides
nothing. What does is how likely each reading is: a writer's letters are frequent ones, a misreading's are not.
"""

import codecs
import math
import re

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(
    rb"<(?:meta|\?xml)\b[^>]*?(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE
)
_DECLARED_WITHIN = 4096  # bytes; HTML says 1,024, and pages that say it later are read all the same
_WHOLE = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "big5": "big5hkscs",
}
_GUESSED = ("cp949", "gb18030", "big5hkscs")
_WEIGHED = 8000  # bytes; more would not change what is likely

# the letters that make up most of a text, from the most frequent on
_HANGUL = (
    "이다는을의에가고를은하지한도로사기서시자나인리어그정스대아해수일들부만게전보요라원과장여주구제성마동상없비있것으"
    "거면니세안신경였조선계중생치학우공오연소국영유문분진드미차며관화간민심말네와위물실회방무트재명체적반내호강년려모"
    "바까개때결크야양당감발러입업금산통식습음직노르히던될됐단법속행저타출추운각처럼립설후두교복외작집임용불같받알못잘"
    "초특레더번천파토태메디프터카피키테플포버머배베브블함합했향현형험황확활환효할혼홍열예온왔왜울움월육율응워었억언얼"
    "엄엇십싶씨쓰써쓴싫승순술숙송손색살삼별벌병본봉북빠빛빨뿐백밤박밝막많맛망맞매먹먼멀몇몸목몰묻므믿밀독돈돌된뒤든듯"
    "등딸따떤떻또뜻똑닌난날남낌낮너널넘녀녕놓높놀누눈느늘능늦님극근글급긴길김깊깨꺼께꼭꽃끝끼객건걸검겁격견겨겠겪곡곧"
    "골곳광괜굴굳군권규균궁갈갑값갔칠칭층측친침축충최촌철책청참찾찬착창쟁져졌족존졸종좋죄죽준줄줌즈즉즐증질짐짓짜째쪽"
    "찍좀점접잡잠잖암압앞약얘얻엔엘엮역옆옮옷완왕욕웃읽잃잊료루류률른름릇릎릴림링린락란람랑랐래략량렇렀력련렵령례록론"
    "롭롯랬칸컨컴켜코콜쿠큰클탁탄탈택털텔톡투튼틀틱팀팔편평폭표품풍필핑팅항핵허헌헤혀협혹흐흔흥희힘혜훈훨휘휴킨킬릭션"
    "않옵패데되변렉커페절랜텍칼템퍼새덱았밋티램젯됨렬숫삭쓸올딩룹닙젝범볼슬롤꾸콘턴석런폴잭됩뉴및케듈쿼컬쇄캐셀붙셸웨"
    "칙꿀왼냅델픽꼴셋뷰취듭닫빈탭벗달채묶켓났뜀춤윈퀀슈벨덮답낼넣씁싱섬깁꿈롬덤애벤논납귀캘깃릿푸첫탐큼획꿉힌옴갯릅액"
    "섹룰멈옛괄핸핀줍깅겟뀌맨숨빌륨랍틴끊럭맵튜큽탬빼"
)
_HAN = (
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而"
    "能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长知民样现分将外但身些与高"
    "意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业最间新什打便位因重被走电四第门相次东政"
    "海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼体别处总才场师书比住员九笑性通目华报立马命张活"
    "难神数件安表原车白应路期叫死常提感金何更反合放做系计或司利受光王果亲界及今京务制解各任至清物台象记边共风战干接它"
    "许八特觉望直服毛林题建南度统色字请交爱让认算论百吃义科怎元社术结六功指思非流每青管夫连远资队跟带花快条院变联言权"
    "往展该领传近留红治决周保达办运武半候七必城父强步完革深区即求品士转量空甚众技轻程告江语英基派满式李息写呢识极令黄"
    "德收脸钱党倒未持取设始版双历越史商千片容研像找友孩站广改议形委早房音火际则首单据导影失拿网香似斯专石若兵弟谁校读"
    "志飞观争究包组造落视济喜离虽测试验输模型训练习答案谢您夹户码库页号类推速律维标准质项环境划份选择级构序错误密简易"
    "增减這來說們個國對時會為過學後麼發還經開見頭動長樣現將與進實點種聲話問機給幾業間電門東氣關並內產萬書員華報馬張難"
    "數應車親務記邊風戰許覺題統請愛讓認論義術結連遠資隊帶條變聯權傳紅決辦運達區轉眾輕語極黃臉錢黨設雙歷議際單據導網專"
    "誰讀觀爭組視濟離體處總場師軍當從兩沒裡兒聽寫識滿強測試驗輸訓練習檔碼庫頁號類維標準質項環劃選擇級構錯誤簡減繁符置"
    "列效示录存器值参格显除引尔支配拉索称败图省查需签否换创键印亚证操删复克钥编默软含须节态启移档函略执段状块串获检限"
    "允超属尼布卡调警径匹消阿归备载装源止退按束链集确排巴线端忽规整析缺域罗注纳修窗缓址围州范返缩宽冲瓦闭兰添询锁具萨"
    "供助终替素扩隔访跳送描塔普伊仅压触框且预搜禁仓塞约丁群右盖辑述偏菜左临断控距译坏句盘缀例补钮哈奥旧颜岛切突响储续"
    "继齐洛希映停尾待覆角恢弃县姆初古栏波根踪秒吉递埃托损异销贝登帮绝树板享套照郡府雷無稱顯錄於訊鍵料預敗啟亞執參鑰態"
    "編狀圖則換證徑爾援刪裝簽塊線別該籤複規封載製寬欄併檢縮確伺屬範尋須暫軟圍鈕衝羅計備憑蘭譯顏註章壓追儲憶閉盤底補蹤"
    "棄納輯終鎖景附游調繪島尚依斷損蓋異齊匯翻廢垂舊僅薩綴較透遞母捲觸響壞側哥協掛樹嘗核細隱捷續牙尺緩絕碟米詳覽差擴寸"
    "考繼介額焦幕割適致呼署短冊銷充零威疊約藏滑隨節烏撤夾迴般箭瑞畫拒漢延假背盒彩填訂摩階雜濾斜旗某紙螢復詢誌媒奧頂盧"
    "授括著層足湊鏈伯聖嗎曼蘇鼠坦諾演魯堆偵互另瀏射擊監低捨沙脫毀昇陽末餘護擬卻順截緒逾緣私況麥仍詞丹帳奇俄稿架臺遺硬"
    "疏土閱永貯帕精稀殊戳泰磁升礎紀優嵌領班貝驅勒插盡釋埠虛桌副哪"
)
_MARKS_OF_PROSE = "。，、；：？！“”‘’（）《》〈〉【】「」『』—…·～　￥％＋－"
# a share of a text, and among how many letters: a frequent letter says much, one that is only common says little
_LIKELY = {
    **dict.fromkeys(_HAN, math.log(0.85 / 1100)),
    **dict.fromkeys(_HANGUL + "ㅋㅎㅠㅜㅇㄱㄴㄷ", math.log(0.95 / 600)),
    **dict.fromkeys(_MARKS_OF_PROSE, math.log(0.1 / 30)),
}
_COMMON_HAN, _RARE_HAN = math.log(0.14 / 3000), math.log(0.01 / 6000)
_COMMON_HANGUL, _RARE_HANGUL = math.log(0.05 / 1700), math.log(0.0002 / 8800)
_SIGN = math.log(0.01 / 600)  # dashes, arrows, figures in circles
_MIXED = re.compile(r"(?<=[가-힣])[\u4e00-\u9fff\uf900-\ufaff]|(?<=[\u4e00-\u9fff\uf900-\ufaff])[가-힣]")
_MIXING = math.log(0.1)  # for each place where a word goes from one script to the other
_RARER = {"big5hkscs": math.log(0.03)}  # files of that encoding among all
_STRANGE = math.log(1e-8)  # kana, box lines, private letters: signs of a misreading


def decode(content: bytes) -> str | None:
    """The text; None where no encoding that is known gives one. A declaration that doesn't hold is passed over."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _decoded(content, encoding)
    if (text := _decoded(content, "utf-8")) is not None:
        return text
    if (declared := _DECLARED.search(content[:_DECLARED_WITHIN])) is not None:
        name = declared[1].decode("ascii", "replace").lower()
        if (text := _decoded(content, _WHOLE.get(name, name))) is not None:
            return text
    readings = [encoding for encoding in _GUESSED if _decoded(content, encoding) is not None]
    likely = max(readings, key=lambda encoding: _likelihood(content[:_WEIGHED], encoding), default="utf-8")
    return _decoded(content, likely)


def has_mark(content: bytes) -> bool:
    """Whether a byte order mark says that zero bytes are part of letters."""
    return any(content.startswith(mark) for mark, _ in _MARKS)


def _decoded(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except (UnicodeError, LookupError):
        return None


def _likelihood(content: bytes, encoding: str) -> float:
    text = content.decode(encoding, "ignore")  # a letter at the end may be cut
    mixed = len(_MIXED.findall(text)) * _MIXING
    return (
        mixed + sum(_of_letter(letter) for letter in text if not letter.isascii()) + _RARER.get(encoding, 0.0)
    )


def _of_letter(letter: str) -> float:
    known = _LIKELY.get(letter)
    if known is not None:
        return known
    if "ㄱ" <= letter <= "ㅣ":
        return _COMMON_HANGUL
    if "가" <= letter <= "힣":
        return _COMMON_HANGUL if _is_in(letter, "euc-kr") else _RARE_HANGUL
    if "\u3400" <= letter <= "\u9fff" or "\uf900" <= letter <= "\ufaff":
        code = letter.encode("gb2312", "ignore")
        return _COMMON_HAN if (code and code[0] < 0xD8) or _is_common_in_taiwan(letter) else _RARE_HAN
    return _SIGN if "\u2000" <= letter <= "\u27bf" or letter in "±×÷°·§¶" else _STRANGE


def _is_in(letter: str, encoding: str) -> bool:
    return bool(letter.encode(encoding, "ignore"))


def _is_common_in_taiwan(letter: str) -> bool:
    code = letter.encode("big5", "ignore")
    return bool(code) and code[0] <= 0xC6
