"""Plain sentences for made-up answers, three in each of IFEval's 30 languages; no commas, no marks at the end."""

PHRASES: dict[str, tuple[str, str, str]] = {
    "ar": (
        "الطقس جميل اليوم والأطفال يلعبون في الحديقة",
        "تقرأ أختي كتابا جيدا كل مساء",
        "نريد أن نشتري الخبز والحليب من السوق غدا",
    ),
    "bg": (
        "Времето днес е хубаво и децата играят в градината",
        "Сестра ми чете хубава книга всяка вечер",
        "Утре искаме да купим хляб и мляко от пазара",
    ),
    "bn": (
        "আজ আবহাওয়া সুন্দর এবং শিশুরা বাগানে খেলছে",
        "আমার বোন প্রতি সন্ধ্যায় একটি ভালো বই পড়ে",
        "আমরা আগামীকাল বাজার থেকে রুটি ও দুধ কিনতে চাই",
    ),
    "de": (
        "Das Wetter ist heute schön und die Kinder spielen im Garten",
        "Meine Schwester liest jeden Abend ein gutes Buch",
        "Wir wollen morgen auf dem Markt Brot und Milch kaufen",
    ),
    "en": (
        "The weather is nice today and the children are playing in the garden",
        "My sister reads a good book in the evening",
        "We want to buy bread and milk at the market tomorrow",
    ),
    "es": (
        "El tiempo es bueno hoy y los niños juegan en el jardín",
        "Mi hermana lee un buen libro todas las noches",
        "Mañana queremos comprar pan y leche en el mercado",
    ),
    "fa": (
        "امروز هوا خوب است و بچه‌ها در باغ بازی می‌کنند",
        "خواهرم هر شب یک کتاب خوب می‌خواند",
        "ما می‌خواهیم فردا از بازار نان و شیر بخریم",
    ),
    "fi": (
        "Sää on tänään kaunis ja lapset leikkivät puutarhassa",
        "Sisareni lukee hyvää kirjaa joka ilta",
        "Haluamme ostaa huomenna torilta leipää ja maitoa",
    ),
    "fr": (
        "Il fait beau aujourd'hui et les enfants jouent dans le jardin",
        "Ma sœur lit un bon livre tous les soirs",
        "Nous voulons acheter du pain et du lait au marché demain",
    ),
    "gu": (
        "આજે હવામાન સારું છે અને બાળકો બગીચામાં રમે છે",
        "મારી બહેન દરરોજ સાંજે સારું પુસ્તક વાંચે છે",
        "અમે આવતીકાલે બજારમાંથી રોટલી અને દૂધ ખરીદવા માંગીએ છીએ",
    ),
    "he": (
        "מזג האוויר היום יפה והילדים משחקים בגינה",
        "אחותי קוראת ספר טוב בכל ערב",
        "אנחנו רוצים לקנות מחר לחם וחלב בשוק",
    ),
    "hi": (
        "आज मौसम अच्छा है और बच्चे बगीचे में खेल रहे हैं",
        "मेरी बहन हर शाम एक अच्छी किताब पढ़ती है",
        "हम कल बाज़ार से रोटी और दूध खरीदना चाहते हैं",
    ),
    "it": (
        "Oggi il tempo è bello e i bambini giocano nel giardino",
        "Mia sorella legge un buon libro ogni sera",
        "Domani vogliamo comprare il pane e il latte al mercato",
    ),
    "ja": (
        "今日は天気が良くて子供たちは庭で遊んでいます",
        "私の妹は毎晩いい本を読みます",
        "明日は市場でパンと牛乳を買いたいです",
    ),
    "kn": (
        "ಇಂದು ಹವಾಮಾನ ಚೆನ್ನಾಗಿದೆ ಮತ್ತು ಮಕ್ಕಳು ತೋಟದಲ್ಲಿ ಆಡುತ್ತಿದ್ದಾರೆ",
        "ನನ್ನ ತಂಗಿ ಪ್ರತಿ ಸಂಜೆ ಒಳ್ಳೆಯ ಪುಸ್ತಕ ಓದುತ್ತಾಳೆ",
        "ನಾವು ನಾಳೆ ಮಾರುಕಟ್ಟೆಯಲ್ಲಿ ರೊಟ್ಟಿ ಮತ್ತು ಹಾಲು ಖರೀದಿಸಲು ಬಯಸುತ್ತೇವೆ",
    ),
    "ko": (
        "오늘은 날씨가 좋아서 아이들이 정원에서 놀고 있습니다",
        "제 여동생은 매일 저녁 좋은 책을 읽습니다",
        "우리는 내일 시장에서 빵과 우유를 사고 싶습니다",
    ),
    "ml": (
        "ഇന്ന് കാലാവസ്ഥ നല്ലതാണ് കുട്ടികൾ തോട്ടത്തിൽ കളിക്കുന്നു",
        "എന്റെ സഹോദരി എല്ലാ വൈകുന്നേരവും നല്ല പുസ്തകം വായിക്കുന്നു",
        "ഞങ്ങൾ നാളെ ചന്തയിൽ നിന്ന് അപ്പവും പാലും വാങ്ങാൻ ആഗ്രഹിക്കുന്നു",
    ),
    "mr": (
        "आज हवामान छान आहे आणि मुले बागेत खेळत आहेत",
        "माझी बहीण रोज संध्याकाळी चांगले पुस्तक वाचते",
        "आम्हाला उद्या बाजारातून भाकरी आणि दूध विकत घ्यायचे आहे",
    ),
    "ne": (
        "आज मौसम राम्रो छ र केटाकेटीहरू बगैंचामा खेलिरहेका छन्",
        "मेरी बहिनी हरेक साँझ राम्रो किताब पढ्छिन्",
        "हामी भोलि बजारबाट रोटी र दूध किन्न चाहन्छौं",
    ),
    "pa": (
        "ਅੱਜ ਮੌਸਮ ਚੰਗਾ ਹੈ ਅਤੇ ਬੱਚੇ ਬਾਗ ਵਿੱਚ ਖੇਡ ਰਹੇ ਹਨ",
        "ਮੇਰੀ ਭੈਣ ਹਰ ਸ਼ਾਮ ਚੰਗੀ ਕਿਤਾਬ ਪੜ੍ਹਦੀ ਹੈ",
        "ਅਸੀਂ ਕੱਲ੍ਹ ਬਾਜ਼ਾਰ ਤੋਂ ਰੋਟੀ ਅਤੇ ਦੁੱਧ ਖਰੀਦਣਾ ਚਾਹੁੰਦੇ ਹਾਂ",
    ),
    "pl": (
        "Pogoda jest dzisiaj ładna i dzieci bawią się w ogrodzie",
        "Moja siostra czyta dobrą książkę każdego wieczoru",
        "Chcemy jutro kupić chleb i mleko na targu",
    ),
    "pt": (
        "O tempo está bom hoje e as crianças brincam no jardim",
        "A minha irmã lê um bom livro todas as noites",
        "Amanhã queremos comprar pão e leite no mercado",
    ),
    "ru": (
        "Сегодня хорошая погода и дети играют в саду",
        "Моя сестра читает хорошую книгу каждый вечер",
        "Завтра мы хотим купить хлеб и молоко на рынке",
    ),
    "sw": (
        "Hali ya hewa ni nzuri leo na watoto wanacheza katika bustani",
        "Dada yangu anasoma kitabu kizuri kila jioni",
        "Tunataka kununua mkate na maziwa sokoni kesho",
    ),
    "ta": (
        "இன்று வானிலை நன்றாக இருக்கிறது குழந்தைகள் தோட்டத்தில் விளையாடுகிறார்கள்",
        "என் சகோதரி தினமும் மாலையில் நல்ல புத்தகம் படிக்கிறாள்",
        "நாங்கள் நாளை சந்தையில் ரொட்டியும் பாலும் வாங்க விரும்புகிறோம்",
    ),
    "te": (
        "ఈ రోజు వాతావరణం బాగుంది మరియు పిల్లలు తోటలో ఆడుతున్నారు",
        "నా చెల్లెలు ప్రతి సాయంత్రం మంచి పుస్తకం చదువుతుంది",
        "మేము రేపు మార్కెట్లో రొట్టె మరియు పాలు కొనాలనుకుంటున్నాము",
    ),
    "th": (
        "วันนี้อากาศดีและเด็กๆ กำลังเล่นอยู่ในสวน",
        "น้องสาวของฉันอ่านหนังสือดีๆ ทุกเย็น",
        "พรุ่งนี้เราอยากซื้อขนมปังและนมที่ตลาด",
    ),
    "uk": (
        "Сьогодні гарна погода і діти граються в саду",
        "Моя сестра читає добру книжку щовечора",
        "Завтра ми хочемо купити хліб і молоко на ринку",
    ),
    "ur": (
        "آج موسم اچھا ہے اور بچے باغ میں کھیل رہے ہیں",
        "میری بہن ہر شام ایک اچھی کتاب پڑھتی ہے",
        "ہم کل بازار سے روٹی اور دودھ خریدنا چاہتے ہیں",
    ),
    "vi": (
        "Hôm nay thời tiết đẹp và trẻ em đang chơi trong vườn",
        "Em gái tôi đọc một cuốn sách hay mỗi buổi tối",
        "Ngày mai chúng tôi muốn mua bánh mì và sữa ở chợ",
    ),
}
