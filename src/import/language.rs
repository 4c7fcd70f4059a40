//! Language codes as the `prompts` table has them: ISO 639-3, the same codes the language detector gives.
//!
//! In: a code of the source (`en`, `pt-BR`, `deu`) or a text. Out: `eng`, `por`, `deu`, or nothing when unknown.

/// How much of a text the detector looks at.
const DETECT_CHARS: usize = 1000;

/// ISO 639-1 -> ISO 639-3. Where ISO has a macrolanguage and the detector an individual one, the detector's code
/// stands, so that a declared and a detected language compare equal: zh -> cmn, fa -> pes, no -> nob.
const CODES: &str = "aa=aar ab=abk ae=ave af=afr ak=aka am=amh an=arg ar=ara as=asm av=ava ay=aym az=aze ba=bak be=bel \
    bg=bul bi=bis bm=bam bn=ben bo=bod br=bre bs=bos ca=cat ce=che ch=cha co=cos cr=cre cs=ces cu=chu cv=chv cy=cym \
    da=dan de=deu dv=div dz=dzo ee=ewe el=ell en=eng eo=epo es=spa et=est eu=eus fa=pes ff=ful fi=fin fj=fij fo=fao \
    fr=fra fy=fry ga=gle gd=gla gl=glg gn=grn gu=guj gv=glv ha=hau he=heb hi=hin ho=hmo hr=hrv ht=hat hu=hun hy=hye \
    hz=her ia=ina id=ind ie=ile ig=ibo ii=iii ik=ipk io=ido is=isl it=ita iu=iku ja=jpn jv=jav ka=kat kg=kon ki=kik \
    kj=kua kk=kaz kl=kal km=khm kn=kan ko=kor kr=kau ks=kas ku=kur kv=kom kw=cor ky=kir la=lat lb=ltz lg=lug li=lim \
    ln=lin lo=lao lt=lit lu=lub lv=lav mg=mlg mh=mah mi=mri mk=mkd ml=mal mn=mon mr=mar ms=msa mt=mlt my=mya na=nau \
    nb=nob nd=nde ne=nep ng=ndo nl=nld nn=nno no=nob nr=nbl nv=nav ny=nya oc=oci oj=oji om=orm or=ori os=oss pa=pan \
    pi=pli pl=pol ps=pus pt=por qu=que rm=roh rn=run ro=ron ru=rus rw=kin sa=san sc=srd sd=snd se=sme sg=sag si=sin \
    sk=slk sl=slv sm=smo sn=sna so=som sq=sqi sr=srp ss=ssw st=sot su=sun sv=swe sw=swa ta=tam te=tel tg=tgk th=tha \
    ti=tir tk=tuk tl=tgl tn=tsn to=ton tr=tur ts=tso tt=tat tw=twi ty=tah ug=uig uk=ukr ur=urd uz=uzb ve=ven vi=vie \
    vo=vol wa=wln wo=wol xh=xho yi=yid yo=yor za=zha zh=cmn zu=zul zho=cmn fas=pes nor=nob";

/// The ISO 639-3 code for a code with or without a region (`pt-BR`, `zh_CN`); three-letter codes stay.
pub(crate) fn from_code(code: &str) -> Option<String> {
    let base = code.trim().split(['-', '_']).next()?.to_ascii_lowercase();
    let known =
        CODES.split_ascii_whitespace().filter_map(|pair| pair.split_once('=')).find(|(short, _)| *short == base);
    match known {
        Some((_, long)) => Some(long.to_owned()),
        None => (base.len() == 3 && base.bytes().all(|b| b.is_ascii_lowercase())).then_some(base),
    }
}

/// The language a text is written in, where the detector is sure of it.
pub(crate) fn detect(text: &str) -> Option<String> {
    let end = text.char_indices().nth(DETECT_CHARS).map_or(text.len(), |(end, _)| end);
    whatlang::detect(&text[..end]).filter(|info| info.is_reliable()).map(|info| info.lang().code().to_owned())
}
